"""The offload probe on real sockets, real VXLAN devices and a "NIC" that does not do its checksums.

Between veth devices nobody ever fills in a checksum that was left to the device. So a rule that drops the
very datagrams whose inner checksum is still the bare pseudo-header's is what a broken NIC amounts to.
"""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address

import pytest

from patience import PATIENT
from towpath.agent import ethtool
from towpath.agent.offload import Device, OffloadProbe
from towpath.kernel.netns import new_netns, run_in
from towpath.model.net import Addr

pytestmark = pytest.mark.kernel
PORT = 8473
A, B = ip_address("10.42.1.0"), ip_address("10.42.2.0")
A6, B6 = ip_address("fd00:10:42:1::"), ip_address("fd00:10:42:2::")
SIZES = (33, 1421)
SIZES6 = (33, 1381)


class InNamespace:
    """``OffloadPort`` of another namespace."""

    def __init__(self, netns: int) -> None:
        self.netns = netns
        self.switched: list[bool] = []
        self._system = ethtool.SystemOffload()

    def open(self, address: Addr, port: int) -> socket.socket:
        return run_in(self.netns, lambda: self._system.open(address, port))

    def index(self, dev: str) -> int:
        return run_in(self.netns, lambda: self._system.index(dev))

    def tx_checksum(self, dev: str) -> bool:
        return run_in(self.netns, lambda: self._system.tx_checksum(dev))

    def set_tx_checksum(self, dev: str, on: bool) -> None:
        self.switched.append(on)
        run_in(self.netns, lambda: self._system.set_tx_checksum(dev, on))


class Pair:
    """Two nodes' overlays over one wire."""

    def __init__(self) -> None:
        self.a, self.b = new_netns(), new_netns()
        self.sh(self.a, f"ip link add und0 type veth peer name und0 netns /proc/{os.getpid()}/fd/{self.b}")
        for netns, me, you in ((self.a, 1, 2), (self.b, 2, 1)):
            self.sh(netns, "ip link set lo up; ip link set und0 up")
            self.sh(netns, f"ip addr add 172.30.0.1{me}/24 dev und0")
            self.sh(
                netns,
                f"ip link add flannel.1 address 02:00:00:00:00:0{me} mtu 1450 type vxlan id 1 dstport 8472 "
                f"local 172.30.0.1{me} dev und0 nolearning; ip link set flannel.1 up; "
                f"ip addr add 10.42.{me}.0/32 dev flannel.1; "
                f"ip addr add fd00:10:42:{me}::/128 dev flannel.1 nodad; "
                f"bridge fdb add 02:00:00:00:00:0{you} dev flannel.1 dst 172.30.0.1{you} self permanent; "
                f"ip neigh add 10.42.{you}.0 lladdr 02:00:00:00:00:0{you} dev flannel.1 nud permanent; "
                f"ip neigh add fd00:10:42:{you}:: lladdr 02:00:00:00:00:0{you} dev flannel.1 nud permanent; "
                f"ip route add 10.42.{you}.0/24 via 10.42.{you}.0 dev flannel.1 onlink src 10.42.{me}.0; "
                f"ip route add fd00:10:42:{you}::/64 via fd00:10:42:{you}:: dev flannel.1 onlink",
            )

    @staticmethod
    def sh(netns: int, script: str) -> None:
        done = run_in(
            netns, lambda: subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"

    def break_offload(self, only_size: int = 0) -> None:
        """Drop, on arrival at b, what a sent without having its inner checksum filled in."""
        rules = []
        for source, target, sizes, header in ((A, B, SIZES, 20), (A6, B6, SIZES6, 40)):
            for size in sizes:
                if only_size in (0, size):
                    at = (8 + 8 + 14 + header + 6) * 8  # UDP, VXLAN, Ethernet, IP, and into UDP
                    value = pseudo_header_sum(source.packed + target.packed, size + 8)
                    rules.append(f"udp dport 8472 @th,{at},16 {value:#x} drop;")
        text = (
            f"table ip nic {{ chain in {{ type filter hook prerouting priority -300; {' '.join(rules)} }}; }}"
        )
        self.sh(self.b, f"nft '{text}'")

    def close(self) -> None:
        os.close(self.a)
        os.close(self.b)


def pseudo_header_sum(addresses: bytes, length: int) -> int:
    """What the UDP checksum field holds while it waits for the device (RFC 768, RFC 8200 §8.1)."""
    total = sum(int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2))
    total += 17 + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


class Probes:
    def __init__(self, pair: Pair, source: Addr, target: Addr) -> None:
        self.system = InNamespace(pair.a)
        self.a = OffloadProbe(self.system, PORT, first_after=0.01, answer_within=0.1)
        self.b = OffloadProbe(InNamespace(pair.b), PORT, first_after=60)
        self.a.update([Device("flannel.1", source, 1450 if source.version == 4 else 1430, {"b": target})])
        self.b.update([Device("flannel.1", target, 1450, {"a": source})])
        self.task: asyncio.Task[None] | None = None

    async def verdict(self) -> str:
        """Probing begins here: what a test breaks before is broken from the first probe on."""
        self.task = self.task or asyncio.create_task(self.a.run())
        async with asyncio.timeout(PATIENT):
            while ("flannel.1", "b") not in self.a.verdicts:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.a.verdicts["flannel.1", "b"]

    async def come_to(self, wanted: str) -> None:
        """An answer that a busy machine is late with leaves it inconclusive, and it is asked again."""
        while await self.verdict() == "inconclusive" != wanted:
            await self.end()
            self.a.verdicts.clear()
            self.a._due = dict.fromkeys(self.a._due, 0.0)
        assert self.a.verdicts["flannel.1", "b"] == wanted

    async def end(self) -> None:
        task, self.task = self.task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=[(A, B), (A6, B6)], ids=["ipv4", "ipv6"])
async def probes(pair: Pair, request: pytest.FixtureRequest) -> AsyncIterator[Probes]:
    made = Probes(pair, *request.param)
    yield made
    await made.end()
    made.a.close()
    made.b.close()


async def test_a_sound_path_is_left_alone(probes: Probes) -> None:
    await probes.come_to("works")
    assert probes.system.switched == []
    assert probes.system.tx_checksum("flannel.1")


async def test_broken_offload_is_switched_off_and_then_datagrams_arrive(pair: Pair, probes: Probes) -> None:
    pair.break_offload()
    await probes.come_to("broken")
    assert probes.system.switched[-1] is False
    assert not probes.system.tx_checksum("flannel.1")
    assert probes.a.switched_off == {"flannel.1": "b"}


async def test_broken_for_large_packets_only(pair: Pair, probes: Probes) -> None:
    version = next(iter(probes.a._devices.values())).device.address.version
    pair.break_offload(only_size=SIZES[1] if version == 4 else SIZES6[1])
    await probes.come_to("broken")


async def test_a_dead_line_proves_nothing(pair: Pair, probes: Probes) -> None:
    Pair.sh(pair.b, "ip link set und0 down")
    assert await probes.verdict() == "inconclusive"
    assert probes.system.switched == []


async def test_a_lossy_line_proves_nothing(pair: Pair, probes: Probes) -> None:
    Pair.sh(
        pair.b,
        "nft 'table ip lossy { chain in { type filter hook prerouting priority -300; "
        "udp dport 8472 numgen random mod 2 0 drop; }; }'",
    )
    assert await probes.verdict() in {"works", "inconclusive"}
    assert probes.system.switched == []


async def test_a_peer_without_an_agent_proves_nothing(probes: Probes) -> None:
    probes.b.close()
    assert await probes.verdict() == "inconclusive"
    assert probes.system.switched == []


async def test_answers_only_peers(pair: Pair, probes: Probes) -> None:
    probes.b.update([])
    assert await probes.verdict() == "inconclusive"


async def test_a_new_device_is_judged_anew(pair: Pair, probes: Probes) -> None:
    pair.break_offload()
    await probes.come_to("broken")
    probes.a.verdicts.clear()
    device = next(iter(probes.a._devices.values())).device
    Pair.sh(
        pair.a, "ip link set flannel.1 name old; ip link add flannel.1 type vxlan id 7 dev und0 dstport 1"
    )
    probes.a.update([device])
    assert probes.a.switched_off == {}
