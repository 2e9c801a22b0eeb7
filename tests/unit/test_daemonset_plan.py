from typing import Any

import msgspec
import pytest
from controller_objects import NOW, daemonset, node, pod, template

from towpath.lab.controllers.actions import Action, Create, Delete
from towpath.lab.controllers.daemonset_plan import by_node, manage, needs, roll, suitability, target_node
from towpath.lab.controllers.daemonset_status import plan_status
from towpath.lab.controllers.history import history, surplus, template_patch
from towpath.lab.controllers.objects_apps import ControllerRevision, DaemonSet
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.resources import DAEMON_SETS

NODES = {f"n{i}": node(f"n{i}") for i in range(4)}


def daemon(name: str, where: str, revision: str, *, ready: bool = True, **more: Any) -> Pod:
    labels = {"app": "web", "controller-revision-hash": revision}
    return pod(name, where, ready=ready, labels=labels, owner=("DaemonSet", "agent"), **more)


def doomed(actions: list[Action]) -> list[str]:
    return [a.name for a in actions if isinstance(a, Delete)]


def targets(actions: list[Action]) -> list[str]:
    pods = [msgspec.convert(a.body, Pod) for a in actions if isinstance(a, Create)]
    return [target_node(p) for p in pods]


def rolling(surge: int | str, unavailable: int | str) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def test_a_pod_is_made_for_every_suitable_node_by_affinity() -> None:
    nodes = {**NODES, "m": node("m", taints=[{"key": "k", "effect": "NoSchedule"}])}
    rows, lost = by_node(daemonset(), "r1", [daemon("a", "n0", "r1")], nodes)
    actions = manage(daemonset(), "r1", rows, NOW)
    assert (targets(actions), lost) == (["n1", "n2", "n3"], [])
    made = actions[0]
    assert isinstance(made, Create)
    assert made.body["metadata"]["labels"]["controller-revision-hash"] == "r1"
    keys = [t["key"] for t in made.body["spec"]["tolerations"]]
    assert "node.kubernetes.io/unreachable" in keys
    assert "node.kubernetes.io/network-unavailable" not in keys


def test_host_network_daemons_tolerate_a_missing_network() -> None:
    bare = node("n", taints=[{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}])
    assert not suitability(needs(template()), bare).run
    assert suitability(needs(template(hostNetwork=True)), bare).run


def test_what_is_misplaced_failed_or_double_goes() -> None:
    nodes = {"n0": NODES["n0"], "bad": node("bad", taints=[{"key": "k", "effect": "NoExecute"}])}
    pods = [
        daemon("first", "n0", "r1", created=NOW - 90),
        daemon("second", "n0", "r1", created=NOW - 10),
        daemon("misplaced", "bad", "r1"),
    ]
    rows, _ = by_node(daemonset(), "r1", pods, nodes)
    assert sorted(doomed(manage(daemonset(), "r1", rows, NOW))) == ["misplaced", "second"]
    rows, _ = by_node(daemonset(), "r1", [daemon("dead", "n0", "r1", phase="Failed")], {"n0": NODES["n0"]})
    assert doomed(manage(daemonset(), "r1", rows, NOW)) == ["dead"]


def test_rolling_update_takes_down_one_at_a_time_and_broken_ones_for_free() -> None:
    pods = [daemon(f"p{i}", f"n{i}", "old", ready=i != 3) for i in range(4)]
    rows, _ = by_node(daemonset(), "new", pods, NODES)
    assert doomed(roll(daemonset(), "new", rows, NOW)) == ["p3"]
    healthy = [daemon(f"p{i}", f"n{i}", "old") for i in range(4)]
    rows, _ = by_node(daemonset(), "new", healthy, NODES)
    assert doomed(roll(daemonset(), "new", rows, NOW)) == ["p0"]
    two = daemonset(updateStrategy=rolling(0, "50%"))
    assert doomed(roll(two, "new", rows, NOW)) == ["p0", "p1"]
    starting = [daemon("p0", "n0", "new", ready=False), *healthy[1:]]
    rows, _ = by_node(daemonset(), "new", starting, NODES)
    assert roll(daemonset(), "new", rows, NOW) == []


def test_on_delete_waits_for_the_operator() -> None:
    item = daemonset(updateStrategy={"type": "OnDelete"})
    rows, _ = by_node(item, "new", [daemon("p0", "n0", "old")], {"n0": NODES["n0"]})
    assert manage(item, "new", rows, NOW) == roll(item, "new", rows, NOW) == []
    rows, _ = by_node(item, "new", [], {"n0": NODES["n0"]})
    made = manage(item, "new", rows, NOW)
    assert targets(made) == ["n0"]


def test_surge_starts_the_new_beside_the_old_and_then_ends_the_old() -> None:
    item = daemonset(updateStrategy=rolling(1, 0))
    old = [daemon(f"p{i}", f"n{i}", "old") for i in range(4)]
    rows, _ = by_node(item, "new", old, NODES)
    assert manage(item, "new", rows, NOW) == []
    assert targets(roll(item, "new", rows, NOW)) == ["n0"]
    rows, _ = by_node(item, "new", [*old, daemon("q0", "n0", "new", ready=False)], NODES)
    assert manage(item, "new", rows, NOW) == roll(item, "new", rows, NOW) == []
    rows, _ = by_node(item, "new", [*old, daemon("q0", "n0", "new")], NODES)
    assert doomed(manage(item, "new", rows, NOW)) == ["p0"]


def test_status_counts() -> None:
    item = daemonset()
    pods = [daemon("a", "n0", "new"), daemon("b", "n1", "old"), daemon("c", "n2", "new", ready=False)]
    rows, _ = by_node(item, "new", pods, NODES)
    (write,) = plan_status(item, rows, NOW)
    assert write.body["status"] == {
        "currentNumberScheduled": 3,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 4,
        "numberReady": 2,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
        "numberUnavailable": 2,
    }


def revision(name: str, number: int, image: str) -> ControllerRevision:
    meta = {
        "name": f"agent-{name}",
        "namespace": "default",
        "uid": name,
        "labels": {"controller-revision-hash": name},
    }
    return msgspec.convert(
        {"metadata": meta, "revision": number, "data": template_patch(template(image))}, ControllerRevision
    )


def found(item: DaemonSet, owned: list[ControllerRevision]) -> Any:
    names = [r.metadata.name for r in owned]
    return history(DAEMON_SETS, item.metadata, item.spec.template, None, owned, names)


def test_history_creates_renumbers_and_forgets() -> None:
    first = found(daemonset("web:1"), [])
    (create,) = first.actions
    assert isinstance(create, Create)
    assert create.body["metadata"]["name"] == f"agent-{first.hash}"
    assert create.body["data"]["spec"]["template"]["$patch"] == "replace"
    assert create.body["revision"] == 1
    kept = [revision("a", 1, "web:1"), revision("b", 2, "web:2")]
    current = found(daemonset("web:2"), kept)
    assert (current.hash, current.actions) == ("b", ())
    undone = found(daemonset("web:1"), kept)
    assert undone.hash == "a"
    assert [a.body for a in undone.actions] == [{"revision": 3}]
    many = [revision(f"r{i}", i, f"web:{i}") for i in range(1, 7)]
    cut = surplus(found(daemonset("web:6"), many), 2, frozenset({"r1"}))
    assert [a.name for a in cut if isinstance(a, Delete)] == ["agent-r2", "agent-r3"]


@pytest.mark.parametrize("taken", [0, 1])
def test_history_avoids_names_of_others(taken: int) -> None:
    item = daemonset()
    plain = history(DAEMON_SETS, item.metadata, item.spec.template, None, [], [])
    names = [f"agent-{plain.hash}"][:taken]
    again = history(DAEMON_SETS, item.metadata, item.spec.template, None, [], names)
    assert (again.hash == plain.hash) is (taken == 0)
