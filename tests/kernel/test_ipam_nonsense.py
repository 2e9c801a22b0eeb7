"""podCIDRs and reservations made nonsense by hand: refused with a code, and pods that run keep running."""

from pathlib import Path
from typing import Any

from agent_node import NODES, PODS, agent_node, call_shim, node, pod, pod_namespace
from test_ipam_check import started

from towpath.api.report import STATUS
from towpath.desired.names import host_ifname
from towpath.kube.kinds import IP_RESERVATIONS

NONSENSE = {
    "IPv4 in IPv6's place": (["10.42.1.0/24", "10.42.9.0/24"], "TP3010"),
    "no CIDR": (["10.42.1.0/24", "fd00:10:42:1::/640"], "TP3010"),
    "outside of the network": (["10.99.1.0/24", "fd00:99::/64"], "TP3011"),
}


def with_cidrs(cidrs: list[str]) -> dict[str, Any]:
    made = node(1)
    made["spec"] = {"podCIDR": cidrs[0], "podCIDRs": cidrs}
    return made


async def test_nonsense_by_hand(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1, pod_namespace() as netns, pod_namespace() as other:
        api = await n1.start_api()
        api.served[IP_RESERVATIONS.group, IP_RESERVATIONS.version] = [IP_RESERVATIONS.plural]
        reserved: dict[str, Any] = {
            "metadata": {"name": "odd"},
            "spec": {"reservedCIDRs": ["10.42.1.300", 7]},
        }
        api.put(IP_RESERVATIONS, reserved)
        api.put(NODES, node(1))
        for name in ("a", "b"):
            api.put(PODS, pod(name))
        await started(n1, api)
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        text = result["ips"][0]["address"].partition("/")[0]

        def said() -> str:
            notes = api.objects["core/v1/nodes"]["", "n1"]["metadata"].get("annotations") or {}
            return str(notes.get(STATUS, ""))

        await n1.until(lambda: "TP4019 IPReservation/odd" in said(), 60)
        for what, (cidrs, told) in NONSENSE.items():
            api.put(NODES, with_cidrs(cidrs))
            await n1.until(lambda told=told: told in said(), 60)  # type: ignore[misc]
            assert host_ifname("default", "a") in n1.ip(f"route show {text}"), what
        api.put(NODES, node(1))
        await n1.until(lambda: said() and "TP301" not in said(), 60)
        await n1.ready()
        code, result = await call_shim(n1, "ADD", "b", other)
        assert code == 0, result
        for name, space in (("a", netns), ("b", other)):
            assert await call_shim(n1, "DEL", name, space) == (0, None)
        n1.stop()
        await api.down()
