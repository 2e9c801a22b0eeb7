"""Nodes go from Canal to Towpath, or back, conducted: whatever stops it, each is of one network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.cli.exit import CliError
from towpath.cli.upgrade_migrate import _part, _prepared
from towpath.install.migration import TAKEN, TAKEOVER, identity, only_labelled, pod_spec, without_taken
from towpath.install.values import Values
from towpath.inventory.cluster import Inventory
from towpath.upgrade import plan as plans
from towpath.upgrade.actions import Deed, EndMove, Gate, Label, Note, StartMove, Wait
from towpath.upgrade.conduct import next_action
from towpath.upgrade.journal import Event, Journal, Record
from towpath.upgrade.moving import DIRECTION, move_pod
from towpath.upgrade.plan import Gates, Migration, NodeStep, Plan
from towpath.upgrade.report import stands
from towpath.upgrade.seen import Direction, Seen, SeenMove, SeenNetworks, SeenPod

NODES = ("n1", "n2", "n3")
CANAL, TOWPATH = "rke2-canal", "towpath"
IMAGE = {"agent": "x:1"}
MOVING = Migration(
    direction="takeover",
    canal=CANAL,
    towpath=TOWPATH,
    objects=identity(Values()),
    pod=pod_spec(Values(), DIRECTION),
)


def plan(direction: Direction = "takeover") -> Plan:
    return plans.sign(
        Plan(
            created="now",
            cluster="uid",
            namespace="kube-system",
            daemonset=TOWPATH if direction == "takeover" else CANAL,
            source="",
            target="towpath" if direction == "takeover" else "canal",
            images={name: (image, image) for name, image in IMAGE.items()},
            strategy={"type": "RollingUpdate"},
            nodes=tuple(NodeStep(node, "") for node in NODES),
            gates=Gates(ready_within=20.0, move_within=50.0, soak=0.0, canary_soak=0.0),
            migration=Migration(**{**_fields(MOVING), "direction": direction}),
        )
    )


def _fields(one: Migration) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


@dataclass
class Cluster:
    """What takeover and handback make of nodes; ``bad``: node to what goes wrong there.

    ``refused``: the takeover changes nothing and ends; ``half``: it ends in the middle; ``stuck``: it goes
    on; ``gate``: what comes after it is not well; ``absent``: Towpath's agent does not come.
    """

    bad: dict[str, str]
    network: dict[str, str]  # canal, half or towpath
    labels: dict[str, str] = field(default_factory=dict)
    moves: dict[str, SeenMove] = field(default_factory=dict)
    ran: list[tuple[str, str]] = field(default_factory=list)
    now: float = 0.0

    def seen(self) -> Seen:
        def there(label: str | None, canal: bool) -> bool:
            return label != TAKEN if canal else label is not None

        def pods(canal: bool) -> dict[str, SeenPod]:
            return {
                node: SeenPod(f"p-{node}", node, IMAGE, True)
                for node in NODES
                if there(self.labels.get(node), canal) and not (self.bad.get(node) == "absent" and not canal)
            }

        networks = SeenNetworks(dict(self.labels), pods(True), pods(False), dict(self.moves))
        return Seen(
            {"type": "RollingUpdate"}, IMAGE, pods(False), frozenset(NODES), at=self.now, networks=networks
        )

    def do(self, action: Deed) -> None:
        match action:
            case Label(node, value):
                self.labels.pop(node, None)
                if value:
                    self.labels[node] = value
            case EndMove(node, _):
                self.moves.pop(node, None)
            case StartMove(node, direction):
                assert not self.moves, "one at a time"
                self.ran.append((node, direction))
                self.moves[node] = SeenMove(
                    f"{direction}-{node}", direction, self._run(node, direction), "why"
                )

    def _run(self, node: str, direction: Direction) -> str:
        how = self.bad.get(node, "")
        if direction == "takeover" and how in ("refused", "half", "stuck"):
            if how == "half":
                self.network[node], self.labels[node] = "half", TAKEN
            return "Running" if how == "stuck" else "Failed"
        self.network[node] = "towpath" if direction == "takeover" else "canal"
        if direction == "takeover":
            self.labels[node] = TAKEN
        else:
            self.labels.pop(node, None)
        return "Succeeded"


def conduct(
    made: Plan,
    cluster: Cluster,
    journal: Journal,
    killed: Sequence[bool] = (),
    word: tuple[int, Event] | None = None,
) -> Journal:
    """Until it ends or stands still. ``killed``: at each deed, whether it is written down and then not done;

    ``word``: what somebody says at a step.
    """
    kills = iter(killed)
    for step in range(400):
        cluster.now += 1
        if word is not None and step == word[0] and journal.mode == "forward" and journal.records:
            journal += Record(word[1], cluster.now)
        action = next_action(made, journal, cluster.seen(), cluster.now)
        match action:
            case None | Wait(_, None):
                return journal
            case Wait():
                cluster.now += 10
            case Note(event, node, text):
                journal += Record(event, cluster.now, node, text)
            case Gate(node):
                well = cluster.bad.get(node) != "gate"
                journal += Record("passed" if well else "failed", cluster.now, node)
            case Label() | EndMove() | StartMove():
                if isinstance(action, StartMove):
                    journal += Record("move", cluster.now, action.node, action.direction)
                if not next(kills, False):
                    cluster.do(action)
            case _:
                raise AssertionError(action)
    raise AssertionError(f"no end: {journal.records[-5:]}")


def begin(direction: Direction, bad: dict[str, str]) -> tuple[Plan, Cluster]:
    begins = "canal" if direction == "takeover" else "towpath"
    labels = {} if direction == "takeover" else dict.fromkeys(NODES, TAKEN)
    return plan(direction), Cluster(bad, dict.fromkeys(NODES, begins), labels)


@pytest.mark.parametrize("direction", ["takeover", "handback"])
def test_all_nodes_go_in_order(direction: Direction) -> None:
    made, cluster = begin(direction, {})
    journal = conduct(made, cluster, Journal())
    assert journal.mode == "done" and cluster.ran == [(node, direction) for node in NODES]
    assert set(cluster.network.values()) == {"towpath" if direction == "takeover" else "canal"}
    assert not cluster.moves
    assert [stands(made, cluster.seen(), node) for node in NODES] == ["new"] * 3


@pytest.mark.parametrize("how", ["refused", "half", "stuck", "gate", "absent"])
def test_a_node_that_does_not_go_goes_back_and_the_rest_was_never_touched(how: str) -> None:
    made, cluster = begin("takeover", {"n2": how})
    journal = conduct(made, cluster, Journal())
    assert journal.mode == "paused", journal
    assert cluster.network == {"n1": "towpath", "n2": "canal", "n3": "canal"}
    assert cluster.labels == {"n1": TAKEN} and not cluster.moves
    assert "n3" not in {node for node, _ in cluster.ran}
    failed = journal.last(("failed",))
    assert failed is not None and failed.node == "n2"
    cluster.bad = {}
    journal = conduct(made, cluster, journal + Record("resume", cluster.now))
    assert journal.mode == "done" and set(cluster.network.values()) == {"towpath"}


def test_back_from_the_middle_and_from_the_end() -> None:
    for bad in ({}, {"n3": "gate"}):
        made, cluster = begin("takeover", dict(bad))
        journal = conduct(made, cluster, Journal())
        journal = conduct(made, cluster, journal + Record("rollback", cluster.now))
        assert journal.mode == "rolled-back"
        assert set(cluster.network.values()) == {"canal"} and not cluster.labels


def test_aborted_the_nodes_stay_as_they_are() -> None:
    made, cluster = begin("takeover", {"n2": "gate"})
    journal = conduct(made, cluster, Journal())
    journal = conduct(made, cluster, journal + Record("abort", cluster.now))
    assert journal.mode == "aborted" and "n1" in journal.records[-1].text
    assert cluster.network == {"n1": "towpath", "n2": "canal", "n3": "canal"}


def test_a_node_that_has_gone_is_passed_over() -> None:
    made, cluster = begin("takeover", {})
    seen = cluster.seen()
    action = next_action(made, Journal((Record("begin", 0),)), seen._replace(nodes=frozenset({"n2"})), 1.0)
    assert action == Note("gone", "n1")


@settings(max_examples=60, deadline=None)
@given(
    direction=st.sampled_from(["takeover", "handback"]),
    bad=st.dictionaries(
        st.sampled_from(NODES), st.sampled_from(["refused", "half", "gate", "absent"]), max_size=2
    ),
    killed=st.lists(st.booleans(), max_size=12),
    said=st.sampled_from(["rollback", "abort", "pause"]),
    step=st.integers(0, 40),
)
def test_killed_anywhere_no_node_is_left_in_between(
    direction: Direction, bad: dict[str, str], killed: list[bool], said: Event, step: int
) -> None:
    made, cluster = begin(direction, bad if direction == "takeover" else {})
    journal = conduct(made, cluster, Journal(), killed, (step, said))
    goal, origin = ("towpath", "canal") if direction == "takeover" else ("canal", "towpath")
    if journal.mode == "paused" and journal.last(("pause",)) is not None:
        return  # somebody must look; which node, stands there
    for node in NODES:
        wanted = goal if journal.passed(node) else origin
        assert cluster.network[node] == wanted, (node, journal.mode)
    assert not cluster.moves


def test_the_pod_that_moves_a_node() -> None:
    pod = move_pod(MOVING, "kube-system", "n1", "handback")
    (container,) = pod["spec"]["containers"]
    assert container["command"][-2:] == ["node", "handback"] and pod["spec"]["nodeName"] == "n1"
    assert (pod["spec"]["restartPolicy"], pod["metadata"]["name"]) == ("Never", "towpath-handback-n1")
    assert MOVING.pod["containers"][0]["command"][-1] == DIRECTION


def daemonset(affinity: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "kube-system", "name": "ds"},
        "spec": {"template": {"spec": {"affinity": affinity}}},
    }


def test_a_cluster_that_is_not_prepared_is_refused() -> None:
    _prepared(daemonset(without_taken()), daemonset(only_labelled()))
    for canal, towpath in (({}, only_labelled()), (without_taken(), {}), (without_taken(), without_taken())):
        with pytest.raises(CliError, match="TP7409"):
            _prepared(daemonset(canal), daemonset(towpath))
    empty = Inventory(taken="", server="", cluster="", nodes=(), components=())
    with pytest.raises(CliError, match="TP7409 Canal's DaemonSet must be there"):
        _part(empty, "hardened-calico", "Canal")


def test_labels_in_between_are_neither() -> None:
    made, cluster = begin("takeover", {})
    cluster.labels["n1"] = TAKEOVER
    assert [stands(made, cluster.seen(), node) for node in NODES] == ["other", "old", "old"]
