from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from controller_objects import NOW, meta, node, pod

from towpath.lab.controllers.nodehealth import evictions, silence_patch, taint_patch, taints, unready_patches
from towpath.lab.controllers.nodeipam import RangeFull, free_subnet, held
from towpath.lab.controllers.objects_core import Node
from towpath.lab.controllers.objects_meta import format_time

EXECUTE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": format_time(NOW)}


def with_conditions(spec: Any = None, **states: str) -> Node:
    conditions = [{"type": t, "status": s} for t, s in states.items()]
    body = {"metadata": meta("n"), "spec": spec or {}, "status": {"conditions": conditions}}
    return msgspec.convert(body, Node)


@pytest.mark.parametrize(
    "states,expected",
    [
        ({"Ready": "True"}, set()),
        ({}, {("not-ready", "NoSchedule")}),
        ({"Ready": "False"}, {("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}),
        ({"Ready": "Unknown"}, {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}),
        ({"Ready": "True", "NetworkUnavailable": "True"}, {("network-unavailable", "NoSchedule")}),
        ({"Ready": "True", "DiskPressure": "True"}, {("disk-pressure", "NoSchedule")}),
    ],
)
def test_conditions_become_taints(states: dict[str, str], expected: set[tuple[str, str]]) -> None:
    found = {
        (t.key.removeprefix("node.kubernetes.io/"), t.effect) for t in taints(with_conditions(**states), NOW)
    }
    assert found == expected


def test_taints_of_others_and_times_stay() -> None:
    mine = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    item = with_conditions({"taints": [mine, EXECUTE], "unschedulable": True}, Ready="Unknown")
    patch = taint_patch(item, NOW + 100)
    assert patch is not None
    written = patch.body["spec"]["taints"]
    assert mine in written
    assert EXECUTE in written
    assert {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"} in written
    assert taint_patch(with_conditions({"taints": [mine]}, Ready="True"), NOW) is None


def test_silence_makes_kubelet_conditions_unknown_once() -> None:
    patch = silence_patch(
        with_conditions(Ready="True", DiskPressure="False", NetworkUnavailable="False"), NOW
    )
    assert patch is not None
    states = {c["type"]: c["status"] for c in patch.body["status"]["conditions"]}
    assert states == {"Ready": "Unknown", "DiskPressure": "Unknown", "NetworkUnavailable": "False"}
    assert silence_patch(with_conditions(Ready="Unknown"), NOW) is None


def test_pods_of_a_silent_node_are_not_ready() -> None:
    (patch,) = unready_patches([pod("a", "n", ready=True), pod("b", "n")], NOW)
    assert patch.name == "a"
    assert patch.body["status"]["conditions"][0]["status"] == "False"


def test_evictions_honour_tolerations() -> None:
    item = with_conditions({"taints": [EXECUTE]}, Ready="Unknown")
    timed = {"key": EXECUTE["key"], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    pods = [
        pod("plain", "n"),
        pod("timed", "n", tolerations=[timed]),
        pod("daemon", "n", tolerations=[{"operator": "Exists"}]),
        pod("going", "n", deleting=True),
    ]
    doomed, wait = evictions(item, pods, NOW + 100)
    assert ([p.metadata.name for p in doomed], wait) == (["plain"], 200)
    doomed, wait = evictions(item, pods, NOW + 301)
    assert ([p.metadata.name for p in doomed], wait) == (["plain", "timed"], None)
    assert evictions(node("n"), pods, NOW) == ([], None)


def test_subnets_are_cut_lowest_first_and_never_overlap() -> None:
    network = ip_network("10.42.0.0/16")
    assert free_subnet(network, 24, set()) == ip_network("10.42.0.0/24")
    taken = {ip_network("10.42.0.0/24"), ip_network("10.42.1.128/25"), ip_network("fd00::/64")}
    assert free_subnet(network, 24, taken) == ip_network("10.42.2.0/24")
    assert free_subnet(network, 24, {ip_network("10.42.0.0/17")}) == ip_network("10.42.128.0/24")
    assert free_subnet(ip_network("fd00:10:42::/56"), 64, set()) == ip_network("fd00:10:42::/64")
    with pytest.raises(RangeFull):
        free_subnet(network, 24, {network})
    with pytest.raises(RangeFull):
        free_subnet(network, 8, set())
    item = node("n", podCIDR="10.42.9.0/24", podCIDRs=["10.42.9.0/24", "nonsense"])
    assert held([item, node("m")]) == {ip_network("10.42.9.0/24")}
