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
from towpath.upgrade.conduct import (
    DeletePod,
    Gate,
    Note,
    Seen,
    SeenPod,
    SetImages,
    SetStrategy,
    Wait,
    next_action,
)
from towpath.upgrade.journal import Journal, Record
from towpath.upgrade.plan import Gates, NodeStep, Plan, PlanError

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

    def seen(self) -> Seen:
        pods = {}
        for node, (serial, images) in self.pods.items():
            how = self.bad.get(node)
            ready = not (how == "dead" or (how == "unready" and images == NEW))
            pods[node] = SeenPod(f"p{serial}", str(serial), images, ready, "" if ready else "crashes")
        return Seen(self.strategy, self.images, pods, frozenset(self.pods))

    def make(self, node: str) -> None:
        self.pods[node] = (self.serial, self.images)
        self.serial += 1
        self.disturbed += 1

    def do(self, action: SetStrategy | SetImages | DeletePod) -> None:
        match action:
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
    return Record("touch", cluster.now, action.node)


def conduct(cluster: Cluster, journal: list[Record], crash_at: set[int], word: dict[int, Record]) -> str:
    """Until there is nothing to do or it stands still. ``crash_at``: steps noted whose action is not done."""
    made = plan()
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
                journal.append(record(cluster, action))
                if isinstance(action, SetStrategy | SetImages | DeletePod) and step not in crash_at:
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


words = st.sampled_from(["pause", "resume", "rollback"])


@given(
    st.dictionaries(st.sampled_from(NODES), st.sampled_from(["fail", "unready"]), max_size=2),
    st.sets(st.integers(0, 80), max_size=12),
    st.dictionaries(st.integers(0, 40), words, max_size=3),
)
def test_it_ends_upgraded_rolled_back_or_standing_still(
    bad: dict[str, str], crashes: set[int], said: dict[int, Any]
) -> None:
    """Killed between a record and its action, told to stop, go on or go back at any step."""
    cluster, journal = Cluster(bad), list[Record]()
    word = {step: Record(event, 0.0) for step, event in said.items()}
    ended = conduct(cluster, journal, crashes, word)
    images = {node: images for node, (_, images) in cluster.pods.items()}
    if ended == "done":
        assert set(map(str, images.values())) == {str(NEW)} and cluster.strategy == ROLLING
    elif ended == "rolled-back":
        assert set(map(str, images.values())) == {str(OLD)} and cluster.strategy == ROLLING
    else:
        assert ended == "paused" and not any(
            images[node] == NEW
            for node in bad
            if any(r.event == "restored" and r.node == node for r in journal)
        )
        again = list(journal)
        again.append(Record("rollback", cluster.now))
        assert conduct(cluster, again, set(), {}) == "rolled-back"
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
