from typing import Any

import pytest
from controller_objects import node, pod

from towpath.lab.controllers.scheduling import NodeView, Placed, Unplaced, schedule, schedule_all

MASTER = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
ANTI = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}


def required(key: str, operator: str, *values: str, field: bool = False) -> dict[str, Any]:
    requirement = {"key": key, "operator": operator, "values": list(values)}
    term = {"matchFields" if field else "matchExpressions": [requirement]}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"nodeAffinity": rule}


def test_pods_spread_over_the_emptiest_nodes() -> None:
    nodes = [node(f"n{i}") for i in range(3)]
    waiting = [pod(f"p{i}", owner=("ReplicaSet", "web")) for i in range(9)]
    placed = [d.node for _, d in schedule_all(waiting, nodes, waiting, {}) if isinstance(d, Placed)]
    assert sorted(placed) == ["n0"] * 3 + ["n1"] * 3 + ["n2"] * 3


def test_decisions_not_echoed_yet_count() -> None:
    nodes = [node("n0"), node("n1")]
    one, two = pod("p1"), pod("p2")
    ((_, decision),) = schedule_all([two], nodes, [one, two], {one.metadata.uid: "n0"})
    assert decision == Placed("n1")


def test_reasons_are_counted_as_kubectl_describe_shows_them() -> None:
    nodes = [node("m", taints=[MASTER]), node("a"), node("b", unschedulable=True)]
    views = [NodeView(n) for n in nodes]
    decision = schedule(pod("p", nodeSelector={"disk": "ssd"}), views)
    assert decision == Unplaced(
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "1 node(s) were unschedulable."
    )
    assert schedule(pod("p"), []) == Unplaced("no nodes available to schedule pods")


@pytest.mark.parametrize(
    "affinity,expected",
    [
        (required("zone", "In", "a"), "n1"),
        (required("zone", "NotIn", "a", "b"), "n3"),
        (required("zone", "Exists"), "n1"),
        (required("zone", "DoesNotExist"), "n3"),
        (required("rank", "Gt", "5"), "n2"),
        (required("metadata.name", "In", "n2", field=True), "n2"),
    ],
)
def test_required_node_affinity(affinity: dict[str, Any], expected: str) -> None:
    nodes = [
        node("n1", labels={"zone": "a", "rank": "1"}),
        node("n2", labels={"zone": "b", "rank": "9"}),
        node("n3"),
    ]
    assert schedule(pod("p", affinity=affinity), [NodeView(n) for n in nodes]) == Placed(expected)


def test_tolerations_open_tainted_nodes() -> None:
    view = [NodeView(node("m", taints=[MASTER]))]
    assert isinstance(schedule(pod("p"), view), Unplaced)
    assert schedule(pod("p", tolerations=[{"operator": "Exists"}]), view) == Placed("m")
    assert schedule(pod("p", tolerations=[{**MASTER, "operator": "Exists"}]), view) == Placed("m")


def test_preferred_no_schedule_only_ranks() -> None:
    nodes = [node("n1", taints=[{"key": "k", "effect": "PreferNoSchedule"}]), node("n2")]
    busy = tuple(pod(f"x{i}", "n2") for i in range(5))
    assert schedule(pod("p"), [NodeView(nodes[0]), NodeView(nodes[1], busy)]) == Placed("n2")


def test_anti_affinity_keeps_one_a_host_in_both_directions() -> None:
    nodes = [node("n1"), node("n2")]
    waiting = [pod(f"p{i}", affinity=ANTI) for i in range(3)]
    decisions = [d for _, d in schedule_all(waiting, nodes, waiting, {})]
    assert decisions[:2] == [Placed("n1"), Placed("n2")]
    assert decisions[2] == Unplaced(
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    )
    plain = schedule(pod("q"), [NodeView(nodes[0], (pod("p", "n1", affinity=ANTI),))])
    assert plain == Unplaced(
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    )


def test_affinity_follows_and_the_first_may_start() -> None:
    together = {"podAffinity": ANTI["podAntiAffinity"]}
    nodes = [node("n1"), node("n2")]
    waiting = [pod(f"p{i}", affinity=together) for i in range(3)]
    assert [d for _, d in schedule_all(waiting, nodes, waiting, {})] == [Placed("n1")] * 3


def test_host_ports_and_resources() -> None:
    ports = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]
    asking = pod("p", containers=ports)
    assert schedule(asking, [NodeView(node("n1"), (pod("q", "n1", containers=ports),))]) == Unplaced(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    import msgspec

    small = msgspec.structs.replace(
        node("n1"),
        status=msgspec.convert({"allocatable": {"cpu": "2", "pods": "1"}}, type(node("n1").status)),
    )
    greedy = pod("p", containers=[{"name": "c", "resources": {"requests": {"cpu": "2500m"}}}])
    assert schedule(greedy, [NodeView(small)]) == Unplaced("0/1 nodes are available: 1 Insufficient cpu.")
    assert schedule(pod("p"), [NodeView(small, (pod("q", "n1"),))]) == Unplaced(
        "0/1 nodes are available: 1 Too many pods."
    )
