"""The report tells what the journal says, whatever became of the upgrade, and needs no other file."""

import html.parser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from msgspec.structs import replace

from served_fake import said
from towpath.cli.upgrade_report import rendered
from towpath.upgrade import audits
from towpath.upgrade import plan as plans
from towpath.upgrade.evidence import GateSeen, PathSeen
from towpath.upgrade.journal import Event, Journal, Record
from towpath.upgrade.plan import CheckSeen, NodeStep, Plan
from towpath.upgrade.report import Report, report, worst
from towpath.upgrade.report_junit import junit
from towpath.upgrade.report_page import page
from towpath.upgrade.seen import Seen, SeenPod

BEGAN = 1_764_000_000.0
SHELL = audits.AuditFinding("high", "TP8120", "usr/bin/<bash>", "a shell")
AUDIT = audits.of("new.oci", "sha256:ab", [audits.AuditFinding("low", "TP8123", "x", "y"), SHELL])
CHANGE = audits.ImageChange("package", "debian tool", "1", "2")
COMPARED = audits.ImageAudit(
    source="diff.json", compared=True, counts={"package": 1, "file": 9}, changes=(CHANGE,)
)
PLAN = plans.sign(
    Plan(
        created="now",
        cluster="uid",
        namespace="kube-system",
        daemonset="net",
        source="v1",
        target="v2<>",
        images={"a": ("x:1", "x:2"), "b": ("y:1", "y:1")},
        strategy={"type": "OnDelete"},
        nodes=tuple(NodeStep(f"n{number}", "fewest <pods>") for number in (1, 2, 3)),
        skipped=(8,),
        digests={"x:2": "sha256:ab"},
        audits=(AUDIT, COMPARED),
        checks=(CheckSeen(1, "target exists", "ok"), CheckSeen(8, "etcd was saved", "skipped", "by --skip")),
    )
)
PATH = PathSeen(
    path="pod→pod", family=4, begin=BEGAN, end=BEGAN + 4, sent=400, lost=7, gap_ms=70, level="H1",
    strip="····██··",
)  # fmt: skip
FINE = GateSeen(gate="stays well", state="pass", saw="ready for 5 s", seconds=5)
BAD = GateSeen(gate="traffic", state="fail", saw="7 lost <of> 400", seconds=4, paths=(PATH,))


def journal(*events: tuple[float, Event, str, str, tuple[GateSeen, ...]]) -> Journal:
    return Journal(tuple(Record(e, BEGAN + at, node, text, gates) for at, e, node, text, gates in events))


BEGUN = ((0, "begin", "", "", ()), (0.1, "freeze", "", "", ()), (0.2, "template", "", "forward", ()))
FIRST = ((1, "touch", "n1", "", ()), (10, "passed", "n1", "", (FINE,)))
FAILED = (
    (11, "touch", "n2", "", ()),
    (19, "failed", "n2", "7 lost", (FINE, BAD)),
    (19.5, "touch", "n2", "", ()),
    (22, "restored", "n2", "7 lost", ()),
)


def pods(*images: str) -> Seen:
    found = {
        f"n{number}": SeenPod("p", "u", {"a": image, "b": "y:1"}, True)
        for number, image in enumerate(images, 1)
    }
    return Seen({"type": "OnDelete"}, {"a": "x:2", "b": "y:1"}, found, frozenset(found))


STOPPED = report(PLAN, journal(*BEGUN, *FIRST, *FAILED), pods("x:2", "x:1", "x:1"), BEGAN + 99)  # type: ignore[arg-type]


def test_who_failed_was_mended_and_the_rest_never_touched() -> None:
    assert [(n.state, n.has) for n in STOPPED.nodes] == [
        ("passed", "new"), ("restored", "old"), ("waiting", "old"),
    ]  # fmt: skip
    assert STOPPED.mode == "paused" and STOPPED.seconds == 22
    first, second, third = STOPPED.nodes
    assert [(s.phase, s.begin, s.end) for s in first.spans] == [("replacing", 1, 5), ("gates", 5, 10)]
    assert [s.phase for s in second.spans] == ["replacing", "gates", "mending", "mending"]
    assert third.spans == ()
    assert (STOPPED.level, STOPPED.asked, STOPPED.lost[0].node) == ("H1", 400, "n2")
    assert [pause.what for pause in STOPPED.pauses] == ["7 lost"]


def test_slower_answers_are_not_called_lost_ones() -> None:
    assert "Something was lost" in STOPPED.cost
    seen = GateSeen(gate="traffic", state="pass", paths=(replace(PATH, lost=0, gap_ms=0.0),))
    records = (Record("touch", BEGAN, "n1"), Record("passed", BEGAN + 9, "n1", "", (seen,)))
    found = report(PLAN, Journal(records), None, BEGAN + 9)
    assert found.level == "H1" and "nothing was lost" in found.cost and "nothing was lost" in page(found)


def test_rolled_back_and_done_say_so() -> None:
    done = journal(*BEGUN, *FIRST, (23, "done", "", "", ()))  # type: ignore[arg-type]
    assert "Upgraded" in report(PLAN, done, None, BEGAN + 99).verdict
    back = Journal((*done.records, Record("rollback", BEGAN + 30), Record("touch", BEGAN + 31, "n1")))
    told = report(PLAN, back, None, BEGAN + 33)
    assert [s.phase for s in told.nodes[0].spans][-1] == "rolling back" and told.seconds == 33
    told = report(PLAN, back + Record("rolled-back", BEGAN + 40), None, BEGAN + 99)
    assert (told.nodes[0].state, told.mode, told.seconds) == ("rolled back", "rolled-back", 40)


class Checker(html.parser.HTMLParser):
    """Every element that is opened is closed, and nothing points to another place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href"}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


EMPTY = report(PLAN, Journal(), None, BEGAN)


@pytest.mark.parametrize("found", [STOPPED, EMPTY], ids=["stopped", "never begun"])
def test_the_page_is_whole_and_escapes_what_it_tells(found: Report) -> None:
    text = page(found)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "v2<>" not in text and "fewest <pods>" not in text and "<of>" not in text


IMAGES = (
    "1 high, 1 low; it is x:2, by digest",
    "<td>TP8120</td><td>usr/bin/&lt;bash&gt;</td>",
    "changed: 1 package, 9 file",
    "9 more are counted and not listed",
    "<td>debian tool</td><td>1</td><td>2</td>",
)


def test_the_page_tells_what_matters() -> None:
    text = page(STOPPED)
    for words in (
        "7 of 400 lost",
        "longest gap 70 ms",
        "Standing still: 1 of 3",
        "x:2",
        "etcd was saved",
        *IMAGES,
    ):
        assert words in text, words


def test_junit_and_json() -> None:
    root = ElementTree.fromstring(junit(STOPPED))
    suites = {suite.get("name"): suite for suite in root}
    assert len(suites["n2"].findall(".//failure")) == 2 and not suites["n1"].findall(".//failure")
    assert suites["n3"].find(".//skipped") is not None
    assert msgspec.json.decode(msgspec.json.encode(STOPPED), type=Report) == STOPPED


def test_junit_tells_what_the_images_hold() -> None:
    """And that fails nothing: whoever made the plan knew."""
    root = ElementTree.fromstring(junit(STOPPED))
    told = {
        suite.get("name"): [(case.get("name"), case.findtext("system-out")) for case in suite]
        for suite in root
        if "image" in str(suite.get("name"))
    }
    (every, shell, _) = told["image audit of new.oci"]
    assert every == ("all", "1 high, 1 low")
    assert shell[0] == "TP8120 usr/bin/<bash>" and str(shell[1]).startswith("high: ")
    assert told["image audit of diff.json"][1] == ("package debian tool", "package debian tool: 1 → 2")
    suite = next(one for one in root if one.get("name") == "image audit of new.oci")
    assert (suite.get("tests"), suite.findall(".//failure")) == ("3", [])


def test_the_worst_level_counts() -> None:
    assert (worst([]), worst(["H0", "", "H2", "H1"]), worst(["H0", "unknown"])) == ("", "H2", "unknown")


def test_a_plan_says_what_was_checked() -> None:
    assert plans.load(plans.dump(PLAN)) == PLAN
    with pytest.raises(plans.PlanError):
        plans.load(plans.dump(replace(PLAN, checks=())))
    with pytest.raises(plans.PlanError):
        plans.load(plans.dump(replace(PLAN, audits=(COMPARED,))))


def test_a_report_that_was_kept_is_shown_again_in_any_form(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(rendered(STOPPED, "json"))
    for form in ("html", "junit"):
        assert said("upgrade", "report", "--from", str(kept), "-o", form) == (0, rendered(STOPPED, form))
    code, told = said("upgrade", "report", "--from", str(kept), "-o", "json")
    assert (code, msgspec.json.decode(told, type=Report)) == (0, STOPPED)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}'])
def test_what_is_no_report_is_not_shown(text: str, tmp_path: Path) -> None:
    odd = tmp_path / "odd.json"
    odd.write_text(text)
    code, told = said("upgrade", "report", "--from", str(odd))
    assert (code, "odd.json is no report" in told) == (2, True), told


def test_a_report_of_another_schema_is_not_shown(tmp_path: Path) -> None:
    newer = tmp_path / "newer.json"
    newer.write_text(rendered(replace(STOPPED, schema="towpath.dev/upgrade-report/v2"), "json"))
    code, told = said("upgrade", "report", "--from", str(newer))
    assert (code, "report/v2; this towpath shows" in told) == (2, True), told
