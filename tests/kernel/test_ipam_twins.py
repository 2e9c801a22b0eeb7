"""Two pods, one address: both owners are named, and the newer pod's traffic is not mixed with the older's."""

import asyncio
import os
import socket
from pathlib import Path

from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace
from test_ipam_check import started, towpath_ipam, with_address

from towpath.desired.names import host_ifname
from towpath.kernel.netns import run_in

LINK = host_ifname("default", "a")


def socket_in(path: Path, family: int) -> socket.socket:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return run_in(descriptor, lambda: socket.socket(family, socket.SOCK_DGRAM))
    finally:
        os.close(descriptor)


class Line:
    """What a pod sends to its node, one family."""

    def __init__(self, n1: AgentNode, netns: Path, family: int, host: str) -> None:
        self.sender = socket_in(netns, family)
        self.receiver = run_in(n1.netns, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.receiver.bind((host, 0))
        self.receiver.setblocking(False)
        self.count = 0

    def send(self) -> None:
        self.count += 1
        self.sender.sendto(str(self.count).encode(), self.receiver.getsockname()[:2])

    def arrived(self) -> bool:
        """Whether what was sent last is there."""
        try:
            while self.receiver.recv(100) != str(self.count).encode():
                pass
        except BlockingIOError:
            return False
        return True

    def passes(self) -> bool:
        """Whether a packet sent now arrives; on a busy machine the next one will."""
        self.send()
        return self.arrived()

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


def routed(n1: AgentNode, text: str) -> bool:
    return f" dev {LINK} " in n1.ip(f"{'-6' if ':' in text else '-4'} route show {text}")


def blocked(line: Line, open_: Line) -> bool:
    """Whether a packet is lost, while one sent after it, by another way through the same queues, is not."""
    line.send()
    open_.send()
    return open_.arrived() and not line.arrived()


def heard(n1: AgentNode) -> float:
    """How many events of pods the agent has had."""
    lines = n1.get("/metrics")[1].splitlines()
    return float(
        next(line for line in lines if line.startswith('towpath_api_events_total{kind="pods"}')).split()[1]
    )


async def test_the_newer_of_two_pods_is_kept_apart_until_the_older_is_gone(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1, pod_namespace() as netns, pod_namespace() as other:
        api = await n1.start_api()
        for one in (node(1), node(2, peer=True)):
            api.put(NODES, one)
        for name in ("a", "b"):
            api.put(PODS, pod(name))
        await started(n1, api)
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        text, text6 = (ip["address"].partition("/")[0] for ip in result["ips"])
        lines = {
            4: Line(n1, netns, socket.AF_INET, "172.30.0.11"),
            6: Line(n1, netns, socket.AF_INET6, "fd00:172:30::11"),
        }
        for line in lines.values():
            await n1.until(line.passes)
        api.put(PODS, with_address("a", text, "2026-01-02T00:00:00Z"))
        api.put(PODS, with_address("older", text, "2026-01-01T00:00:00Z", on="n2"))
        await n1.until(lambda: not routed(n1, text))
        await n1.until(lambda: blocked(lines[4], lines[6]))
        assert routed(n1, text6)

        await n1.until(lambda: len(api.objects.get("core/v1/events", {})) >= 2)
        events = api.objects["core/v1/events"]
        told = {e["involvedObject"]["name"]: (e["type"], e["reason"], e["message"]) for e in events.values()}
        assert {name: one[:2] for name, one in told.items()} == {
            "a": ("Warning", "TP4015"),
            "older": ("Warning", "TP4015"),
        }
        assert "Pod/default/older on n2" in told["a"][2] and "Pod/default/a on n1" in told["older"][2]
        assert "\ntowpath_ipam_conflicts 1.0" in n1.get("/metrics")[1]
        code, rows, _ = await asyncio.to_thread(towpath_ipam, n1, "check")
        found = [(p["code"], p["object"]) for row in rows if row["node"] == "n1" for p in row["problems"]]
        assert ("TP4015", "Pod/default/a") in found

        api.remove(PODS, "older", "default")
        await n1.until(lambda: routed(n1, text) and lines[4].passes())
        assert "\ntowpath_ipam_conflicts 0.0" in n1.get("/metrics")[1]

        # What another node's pod has is not given out here in the first place.
        following = text.rpartition(".")[0] + f".{int(text.rpartition('.')[2]) + 1}"
        before = heard(n1)
        api.put(PODS, with_address("astray", following, "2026-01-01T00:00:00Z", on="n2"))
        await n1.until(lambda: heard(n1) > before)
        code, result = await call_shim(n1, "ADD", "b", other)
        assert code == 0, result
        assert result["ips"][0]["address"] != f"{following}/32"
        for line in lines.values():
            line.close()
        for name, space in (("a", netns), ("b", other)):
            assert await call_shim(n1, "DEL", name, space) == (0, None)
        n1.stop()
        await api.down()
