"""Whatever happens to conductor and nodes: upgraded, rolled back, or standing still and saying so."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from towpath.catalogue import load
from towpath.inventory.cluster import Inventory, node_state
from towpath.inventory.components import components, node_facts
from towpath.lab import canal
from towpath.upgrade import plan as plans
from towpath.upgrade.actions import (
    Cordon,
    Deed,
    DeletePod,
    Drain,
    Gate,
    Note,
    SetFrozen,
    SetImages,
    SetStrategy,
    Wait,
)
from towpath.upgrade.conduct import next_action
from towpath.upgrade.journal import Journal, Record
from towpath.upgrade.plan import Gates, NodeStep, Plan, PlanError
from towpath.upgrade.seen import ChartSeen, Seen, SeenPod

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
OLD, NEW = {"a": "x:1", "b": "y:1"}, {"a": "x:2", "b": "y:1"}
NODES = ("n1", "n2", "n3")


def plan(gates: Gates = Gates(ready_within=10, soak=0, canary_soak=0)) -> Plan:  # noqa: B008
    return plans.sign(
        Plan(
            created="now",
            cluster="uid",
            namespace="kube-system",
            daemonset="net",
            source="1",
            target="2",
            images={name: (OLD[name], NEW[name]) for name in OLD},
            strategy=ROLLING,
            nodes=tuple(NodeStep(node, "") for node in NODES),
            gates=gates,
        )
    )


class Cluster:
    """A DaemonSet, its controller, and nodes on which new pods may be good for nothing.

    ``bad``: nodes whose gate says fail, whose new pod is never ready ("unready"), or no pod at all ("dead").
    """

    def __init__(self, bad: dict[str, str]) -> None:
        self.bad = bad
        self.strategy: dict[str, Any] = ROLLING
        self.images = OLD
        self.pods = dict.fromkeys(NODES, (0, OLD))
        self.serial = 1
        self.disturbed = 0
        self.now = 0.0
        self.cordoned = set[str]()
        self.drained = list[str]()
        self.frozen = False
        self.chart = "c2"

    def around(self, action: SetFrozen | Cordon | Drain) -> None:
        match action:
            case SetFrozen(_, frozen):
                self.frozen = frozen
            case Cordon(node, on):
                (self.cordoned.add if on else self.cordoned.discard)(node)
            case Drain(node):
                self.drained.append(node)

    def seen(self) -> Seen:
        pods = {}
        for node, (serial, images) in self.pods.items():
            how = self.bad.get(node)
            ready = not (how == "dead" or (how == "unready" and images == NEW))
            pods[node] = SeenPod(f"p{serial}", str(serial), images, ready, "" if ready else "crashes")
        chart = ChartSeen(self.frozen, self.chart)
        cordoned = frozenset(self.cordoned)
        return Seen(self.strategy, self.images, pods, frozenset(self.pods), cordoned, chart, self.now)

    def make(self, node: str) -> None:
        self.pods[node] = (self.serial, self.images)
        self.serial += 1
        self.disturbed += 1

    def do(self, action: Deed) -> None:
        match action:
            case SetFrozen() | Cordon() | Drain():
                self.around(action)
            case SetStrategy(strategy):
                self.strategy = strategy
            case SetImages(images):
                self.images = images
            case DeletePod(node, _, uid):
                if self.pods[node][0] == int(uid):
                    self.make(node)
        if self.strategy["type"] == "RollingUpdate":
            for node, (_, images) in list(self.pods.items()):
                if images != self.images:
                    self.make(node)


def record(cluster: Cluster, action: Any) -> Record:
    """What the conductor writes before it acts."""
    match action:
        case Note(event, node, text):
            return Record(event, cluster.now, node, text)
        case Gate(node):
            return Record("failed" if cluster.bad.get(node) == "fail" else "passed", cluster.now, node)
        case SetStrategy(_, event):
            return Record(event, cluster.now)
        case SetImages(_, text):
            return Record("template", cluster.now, "", text)
        case SetFrozen():
            return Record("chart", cluster.now, "", action.describe())
        case Cordon(node, on):
            return Record("cordon" if on else "uncordon", cluster.now, node)
        case Drain(node):
            return Record("drained", cluster.now, node)
    return Record("touch", cluster.now, action.node)


AFTERWARDS = {"uncordon", "drained"}  # written down when it has been done


def conduct(
    cluster: Cluster,
    journal: list[Record],
    crash_at: set[int],
    word: dict[int, Record],
    made: Plan = plan(),  # noqa: B008
) -> str:
    """Until there is nothing to do or it stands still. ``crash_at``: steps noted whose action is not done,

    or done and not noted, where the conductor does it before it writes.
    """
    for step in range(200):
        cluster.now += 1
        if step in word:
            journal.append(replace(word[step], at=cluster.now))
        action = next_action(made, Journal(tuple(journal)), cluster.seen(), cluster.now)
        match action:
            case None:
                return Journal(tuple(journal)).mode
            case Wait(_, None):
                return "paused"
            case Wait():
                cluster.now += 5
            case _:
                noted = record(cluster, action)
                late = noted.event in AFTERWARDS or (isinstance(action, SetFrozen) and not action.frozen)
                if not (late and step in crash_at):
                    journal.append(noted)
                if isinstance(action, Deed) and (late or step not in crash_at):
                    cluster.do(action)
    raise AssertionError(f"no end: {journal[-5:]}")


def test_a_good_upgrade_disturbs_every_node_once() -> None:
    cluster, journal = Cluster({}), list[Record]()
    assert conduct(cluster, journal, set(), {}) == "done"
    assert (cluster.images, cluster.strategy, cluster.disturbed) == (NEW, ROLLING, 3)
    assert [r.event for r in journal] == [
        "begin", "freeze", "template", *["touch", "passed"] * 3, "release", "done",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["fail", "unready"])
def test_a_bad_node_is_mended_and_no_other_is_touched(how: str) -> None:
    cluster, journal = Cluster({"n2": how}), list[Record]()
    assert conduct(cluster, journal, set(), {}) == "paused"
    assert {node: images for node, (_, images) in cluster.pods.items()} == {"n1": NEW, "n2": OLD, "n3": OLD}
    assert cluster.strategy["type"] == "OnDelete" and cluster.disturbed == 3
    wait = next_action(plan(), Journal(tuple(journal)), cluster.seen(), cluster.now)
    assert isinstance(wait, Wait) and ("not ready" in wait.why or how == "fail")

    journal.append(Record("rollback", cluster.now))
    assert conduct(cluster, journal, set(), {}) == "rolled-back"
    assert (cluster.images, cluster.strategy) == (OLD, ROLLING)
    assert all(images == OLD for _, images in cluster.pods.values())


def test_a_node_on_which_nothing_runs_any_more_is_left_to_people() -> None:
    cluster, journal = Cluster({"n1": "dead"}), list[Record]()
    assert conduct(cluster, journal, set(), {}) == "paused"
    wait = next_action(plan(), Journal(tuple(journal)), cluster.seen(), cluster.now)
    assert isinstance(wait, Wait) and "old version again, and that is not ready: crashes" in wait.why
    assert {node: images for node, (_, images) in cluster.pods.items()} == dict.fromkeys(NODES, OLD)
    journal.append(Record("rollback", cluster.now))
    assert conduct(cluster, journal, set(), {}) == "paused"
    cluster.bad.clear()
    journal.append(Record("rollback", cluster.now))
    assert conduct(cluster, journal, set(), {}) == "rolled-back"


def test_after_a_repair_it_goes_on_where_it_stood() -> None:
    cluster, journal = Cluster({"n2": "fail"}), list[Record]()
    conduct(cluster, journal, set(), {})
    cluster.bad.clear()
    journal.append(Record("resume", cluster.now))
    assert conduct(cluster, journal, set(), {}) == "done"
    assert all(images == NEW for _, images in cluster.pods.values()) and cluster.disturbed == 5


def test_a_node_that_vanishes_is_passed_over() -> None:
    cluster, journal = Cluster({}), list[Record]()
    del cluster.pods["n2"]
    assert conduct(cluster, journal, set(), {}) == "done"
    assert [r.node for r in journal if r.event == "gone"] == ["n2"]


EVERYTHING = plans.sign(
    replace(
        plan(),
        evict="drain",
        window="Thu 00:00-12:00 UTC",
        chart=plans.ChartPlan(name="c", before="c1", after="c2"),
    )
)
words = st.sampled_from(["pause", "resume", "rollback", "abort"])


def test_everything_around_a_turn() -> None:
    """1970 began on a Thursday: the window is open. The chart is thawed, since it is of what runs."""
    cluster, journal = Cluster({}), list[Record]()
    assert conduct(cluster, journal, set(), {}, EVERYTHING) == "done"
    turn = ["cordon", "drained", "touch", "passed", "uncordon"]
    assert [r.event for r in journal] == [
        "begin", "chart", "freeze", "template", *turn * 3, "release", "chart", "done",
    ]  # fmt: skip
    assert (cluster.cordoned, cluster.drained, cluster.frozen) == (set(), list(NODES), False)
    assert (
        conduct(cluster, [*journal, Record("rollback", cluster.now)], set(), {}, EVERYTHING) == "rolled-back"
    )
    assert cluster.frozen and cluster.images == OLD


def test_outside_the_window_nothing_is_begun_and_when_it_opens_is_said() -> None:
    cluster, journal = Cluster({}), [Record("begin", 0)]
    cluster.now = 12 * 3600.0
    cluster.images, cluster.strategy, cluster.frozen = NEW, {"type": "OnDelete"}, True
    wait = next_action(EVERYTHING, Journal(tuple(journal)), cluster.seen(), cluster.now)
    assert isinstance(wait, Wait) and wait.until == 7 * 86400 and "Thu 1970-01-08 00:00 UTC" in wait.why
    journal.append(Record("cordon", 1, "n1"))
    cluster.cordoned.add("n1")
    drain = next_action(EVERYTHING, Journal(tuple(journal)), cluster.seen(), cluster.now)
    assert drain == Drain("n1"), "what has begun is brought to its end"


def test_a_node_that_somebody_else_cordoned_stays_so() -> None:
    cluster, journal = Cluster({}), list[Record]()
    cluster.cordoned.add("n2")
    assert conduct(cluster, journal, set(), {}, EVERYTHING) == "done"
    assert cluster.cordoned == {"n2"}


def test_a_chart_of_another_version_stays_frozen() -> None:
    cluster, journal = Cluster({}), list[Record]()
    cluster.chart = "c1"
    assert conduct(cluster, journal, set(), {}, EVERYTHING) == "done"
    assert cluster.frozen and any("TP7405" in r.text for r in journal)
    assert (
        conduct(cluster, [*journal, Record("rollback", cluster.now)], set(), {}, EVERYTHING) == "rolled-back"
    )
    assert not cluster.frozen, "it is of what runs again"


def test_a_chart_that_others_froze_stays_so() -> None:
    cluster, journal = Cluster({}), list[Record]()
    cluster.frozen = True
    own = replace(EVERYTHING, chart=plans.ChartPlan(name="c", before="c1", after="c2", frozen=True))
    assert conduct(cluster, journal, set(), {}, own) == "done" and cluster.frozen


def test_aborted_in_the_middle_of_a_turn() -> None:
    cluster, journal = Cluster({}), list[Record]()
    step = 12  # n2 has its new pod, and was not judged yet
    assert conduct(cluster, journal, set(), {step: Record("abort", 0.0)}, EVERYTHING) == "aborted"
    assert [r.event for r in journal if r.node == "n2"][-3:] == ["touch", "uncordon", "restored"]
    images = {node: images for node, (_, images) in cluster.pods.items()}
    assert images == {"n1": NEW, "n2": OLD, "n3": OLD} and cluster.images == OLD
    assert cluster.strategy["type"] == "OnDelete" and cluster.frozen and not cluster.cordoned
    assert "n1" in journal[-1].text
    journal.append(Record("rollback", cluster.now))
    assert conduct(cluster, journal, set(), {}, EVERYTHING) == "rolled-back"


def test_aborted_before_anything_was_done() -> None:
    cluster, journal = Cluster({}), list[Record]()
    assert conduct(cluster, journal, set(), {2: Record("abort", 0.0)}) == "aborted"
    assert cluster.strategy == ROLLING and cluster.images == OLD and cluster.disturbed == 0


@given(
    st.dictionaries(st.sampled_from(NODES), st.sampled_from(["fail", "unready"]), max_size=2),
    st.sets(st.integers(0, 80), max_size=12),
    st.dictionaries(st.integers(0, 40), words, max_size=3),
    st.sampled_from([plan(), EVERYTHING]),
)
def test_it_ends_upgraded_rolled_back_or_standing_still(
    bad: dict[str, str], crashes: set[int], said: dict[int, Any], made: Plan
) -> None:
    """Killed between a record and its action, told to stop, go on or go back at any step."""
    cluster, journal = Cluster(bad), list[Record]()
    word = {step: Record(event, 0.0) for step, event in said.items()}
    ended = conduct(cluster, journal, crashes, word, made)
    if ended != "paused":
        assert not cluster.cordoned
    images = {node: images for node, (_, images) in cluster.pods.items()}
    if ended == "done":
        assert set(map(str, images.values())) == {str(NEW)} and cluster.strategy == ROLLING
    elif ended == "rolled-back":
        assert set(map(str, images.values())) == {str(OLD)} and cluster.strategy == ROLLING
    else:
        if ended == "aborted" and NEW in images.values():
            assert cluster.strategy["type"] == "OnDelete" and cluster.images == OLD
        assert ended in ("paused", "aborted")
        for node in bad:  # who was given its old version back has it, unless its turn has come again since
            last = Journal(tuple(journal)).last(("touch", "restored"), node)
            assert last is None or last.event == "touch" or images[node] == OLD
        again = list(journal)
        again.append(Record("rollback", cluster.now))
        assert conduct(cluster, again, set(), {}, made) == "rolled-back"
        assert all(one == OLD for _, one in cluster.pods.values()) and cluster.strategy == ROLLING


def test_the_journal_is_text() -> None:
    journal = Journal() + Record("begin", 1.5, text="sha256:ab") + Record("touch", 2.0, "n1")
    assert Journal.parse(journal.text()) == journal
    with pytest.raises(msgspec.DecodeError):
        Journal.parse('{"event": "strange", "at": 1}\n')


# The plan's file.

KNOWN = load.builtin()
FROM, TO = "v1.32.1+rke2r1", "v1.32.2+rke2r1"


def inventory(*names: str, release: str = FROM) -> Inventory:
    daemonset = canal.daemonset(KNOWN.release(release))
    daemonset["metadata"]["uid"] = "ds"
    spec = daemonset["spec"]["template"]["spec"]
    pods = [
        {"metadata": {"name": f"p-{n}", "ownerReferences": [{"uid": "ds"}]}, "spec": {"nodeName": n, **spec}}
        for n in names
    ]
    labels = {"node-role.kubernetes.io/control-plane": "true"}
    raws: list[dict[str, Any]] = [
        {
            "metadata": {"name": n, "labels": labels if n == "s" else {}},
            "status": {"nodeInfo": {"kubeletVersion": FROM}},
        }
        for n in names
    ]
    return Inventory(
        taken="now",
        server=FROM,
        cluster="uid",
        nodes=tuple(node_state(raw, node_facts(raw), len(raw["metadata"]["name"])) for raw in raws),
        components=components([daemonset], pods),
    )


def made(*names: str) -> Plan:
    found = inventory(*names)
    return plans.make(found, found.components[0], ROLLING, TO, KNOWN.release(TO).images, Gates())


def test_the_way_that_can_hurt_least() -> None:
    assert [(s.node, s.reason.split(":")[0]) for s in made("s", "aaa", "b", "cc").nodes] == [
        ("b", "canary"),
        ("cc", "agent with 2 pods"),
        ("aaa", "agent with 3 pods"),
        ("s", "server with 1 pods"),
    ]


def test_images_of_the_plan() -> None:
    images = made("a").images
    assert images["kube-flannel"] == (
        "rancher/hardened-flannel:v0.26.3-build20250108",
        "rancher/hardened-flannel:v0.26.4-build20250218",
    )
    with pytest.raises(PlanError, match="already"):
        found = inventory("a", release=TO)
        plans.make(found, found.components[0], ROLLING, TO, KNOWN.release(TO).images, Gates())


def test_a_plan_that_was_edited_is_refused() -> None:
    text = plans.dump(made("a", "b"))
    assert plans.load(text) == made("a", "b")
    edited = json.loads(text)
    edited["nodes"] = edited["nodes"][:1]
    for bad, why in [
        (json.dumps(edited).encode(), "was changed"),
        (text.replace(b'"schema": 1', b'"schema": 2'), "schema 2"),
        (b"{}", "is no plan"),
        (text[:50], "is no plan"),
    ]:
        with pytest.raises(PlanError, match=why):
            plans.load(bad)


def test_what_no_longer_fits() -> None:
    plan_ = made("a", "b")
    assert plans.misfits(plan_, inventory("a", "b")) == []
    assert plans.misfits(plan_, inventory("a", "c")) == ["node c has come", "node b has gone"]
    differ = plans.misfits(plan_, inventory("a", "b", release=TO))
    assert [text.split()[1] for text in differ] == sorted(canal.CONTAINERS)
    assert plans.misfits(plan_, replace(inventory("a"), cluster="x")) == ["it is another cluster"]
    assert "there is no DaemonSet" in plans.misfits(plan_, replace(inventory("a"), components=()))[0]
