"""What somebody else does to the DaemonSet is told once, and accepted by whoever resumes."""

from towpath.upgrade.edited import CODE, edited
from towpath.upgrade.journal import Event, Journal, Record
from towpath.upgrade.plan import NodeStep, Plan
from towpath.upgrade.seen import Seen

BEFORE, AFTER = {"a": "x:1", "b": "y:1"}, {"a": "x:2", "b": "y:1"}
PLAN = Plan(
    created="",
    cluster="",
    namespace="kube-system",
    daemonset="net",
    source="1",
    target="2",
    images={name: (BEFORE[name], AFTER[name]) for name in BEFORE},
    strategy={"type": "RollingUpdate"},
    nodes=(NodeStep("n1", ""), NodeStep("n2", "")),
)
BEGUN = [Record("begin", 0, template="t"), Record("freeze", 1), Record("template", 2, text="forward")]
TURNED = [*BEGUN, Record("touch", 3, "n1"), Record("passed", 4, "n1")]


def told(records: list[Record], images: dict[str, str] = AFTER, template: str = "t") -> str:
    seen = Seen({"type": "OnDelete"}, images, {}, frozenset(), template=template)
    return edited(PLAN, Journal(tuple(records)), seen)


def pause(text: str, template: str = "") -> Record:
    return Record("pause", 5, text=f"{CODE} {text}", template=template)


def resumed(*records: Record) -> list[Record]:
    return [*TURNED, *records, Record("resume", 6)]


def test_what_the_conductor_does_itself_is_no_edit() -> None:
    assert told([]) == told(BEGUN) == told(TURNED) == ""
    assert told(BEGUN, BEFORE) == "", "killed between the record and the deed"
    failed: list[Event] = ["failed", "restored", "resume"]
    mended = [*TURNED, Record("template", 5, text="back"), *(Record(event, 6, "n2") for event in failed)]
    assert told(mended, BEFORE) == "", "the old images are its own doing; they are set again"


def test_images_of_somebody_else() -> None:
    assert "a has x:3, not x:2" in told(BEGUN, {**AFTER, "a": "x:3"})
    assert "a has no image" in told(BEGUN, {"b": "y:1"})
    assert "a has x:1, not x:2" in told(TURNED, BEFORE), "set back behind its back"
    again = resumed(pause("it was edited"))
    assert told(again, BEFORE) == "", "they are set again"
    assert "x:1" in told([*again, Record("template", 7, text="forward"), Record("touch", 8, "n2")], BEFORE)


def test_anything_else_of_the_template() -> None:
    assert "edited by somebody else" in told(TURNED, template="u")
    assert told(resumed(pause("it was edited", "u")), template="u") == ""
    assert told(resumed(pause("it was edited", "u"))) == "", "whoever undoes it need not say so"
    assert "edited" in told(resumed(pause("it was edited", "u")), template="v")
    assert told([Record("begin", 0)], template="u") == "", "begun by a version that noted none"


def test_another_strategy_is_told_once() -> None:
    again = [*TURNED, Record("freeze", 5)]
    assert "update strategy" in told(again)
    assert told([*again, pause("another update strategy"), Record("resume", 7)]) == ""
    assert told([Record("begin", 0), Record("freeze", 1), Record("freeze", 2)]) == "", "killed in between"
