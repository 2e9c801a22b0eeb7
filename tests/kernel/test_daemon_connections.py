"""Flows that began while rules were missing: what the kernel remembers of them is not left to poison them."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from patience import PATIENT, true
from towpath.kernel.netns import new_netns, run_in
from towpath.kube.fake import FakeApiServer

pytestmark = pytest.mark.kernel
# Something else on the node that has connections tracked while our rules are gone: kube-proxy does.
TRACKING = "table inet proxy { chain c { type nat hook postrouting priority 100; ct state new counter; }; }"
OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8:113::9"
FAMILIES = [(socket.AF_INET, OUTSIDE), (socket.AF_INET6, OUTSIDE6)]


class World:
    """Node ``n1`` with a pod, and an outside host that answers datagrams and knows no way to pods."""

    def __init__(self, n1: AgentNode, pod_netns: int, api: FakeApiServer) -> None:
        self.n1, self.pod, self.api = n1, pod_netns, api

    def client(self, family: socket.AddressFamily, target: str) -> socket.socket:
        sock = run_in(self.pod, lambda: socket.socket(family, socket.SOCK_DGRAM))
        sock.connect((target, 9))
        sock.setblocking(False)
        return sock

    def entries(self, *words: str) -> list[str]:
        found = []
        for family in ("ipv4", "ipv6"):
            out = self.n1.run("conntrack", "-L", "-f", family, "-o", "id").stdout
            found += [line for line in out.splitlines() if all(word in line for word in words)]
        return found


def answered(sock: socket.socket) -> bool:
    """Send once more; whether anything has come back yet."""
    with contextlib.suppress(OSError):
        sock.send(b"x")
    time.sleep(0.01)
    try:
        return bool(sock.recv(16))
    except OSError:
        return False


async def within(seconds: float, truth: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await asyncio.to_thread(truth):
            return True
    return False


@contextlib.contextmanager
def outside(n1: AgentNode) -> Iterator[None]:
    """The other end of the node's cable."""
    netns = new_netns()
    n1.ip("link del und0")
    n1.ip(f"link add und0 type veth peer name und1 netns /proc/{os.getpid()}/fd/{netns}")
    n1.ip("link set und0 up")
    for address in ("172.30.0.11/24", "fd00:172:30::11/64 nodad"):
        n1.ip(f"addr add {address} dev und0")

    def furnish() -> list[socket.socket]:
        for words in (
            "link set lo up",
            "link set und1 up",
            "addr add 172.30.0.1/24 dev und1",
            "addr add fd00:172:30::1/64 dev und1 nodad",
            f"addr add {OUTSIDE}/32 dev lo",
            f"addr add {OUTSIDE6}/128 dev lo nodad",
        ):
            assert os.system(f"ip {words}") == 0
        servers = []
        for family, address in FAMILIES:
            servers.append(socket.socket(family, socket.SOCK_DGRAM))
            servers[-1].bind((address, 9))
        return servers

    servers = run_in(netns, furnish)
    loop = asyncio.get_running_loop()

    def echo(server: socket.socket) -> None:
        data, source = server.recvfrom(64)
        with contextlib.suppress(OSError):  # no way back to a pod's address
            server.sendto(data, source)

    for server in servers:
        server.setblocking(False)
        loop.add_reader(server, echo, server)
    n1.ip("route add default via 172.30.0.1")
    n1.ip("-6 route add default via fd00:172:30::1")
    yield
    for server in servers:
        loop.remove_reader(server)
        server.close()
    os.close(netns)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with agent_node(tmp_path) as n1, outside(n1), pod_namespace() as netns:
        api = await n1.start_api()
        api.put(NODES, node(1))
        api.put(PODS, pod("a"))
        assert n1.run("nft", TRACKING).returncode == 0
        n1.start(own_table=False)
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        handle = os.open(netns, os.O_RDONLY)
        yield World(n1, handle, api)
        os.close(handle)
        if n1.process is not None:
            n1.stop()
        await api.down()


async def test_flows_begun_without_masquerading_work_once_it_is_back(world: World) -> None:
    """The agent is away, and somebody flushes the ruleset."""
    n1 = world.n1
    for family, target in FAMILIES:
        before, poisoned, local = (world.client(family, target) for _ in range(3))
        assert await within(PATIENT, partial(answered, before))
        [kept] = world.entries(target, f"sport={before.getsockname()[1]} ")
        n1.stop()
        assert n1.run("nft", "delete", "table", "inet", "towpath").returncode == 0
        local.connect(("172.30.0.11" if family == socket.AF_INET else "fd00:172:30::11", 9))
        assert not await within(0.3, partial(answered, local))  # nobody listens there
        assert not await within(0.3, partial(answered, poisoned))
        port = f"sport={poisoned.getsockname()[1]} "
        [entry] = world.entries(target, port)
        assert "[UNREPLIED]" in entry
        n1.start(own_table=False)
        await n1.ready()
        assert await within(PATIENT, partial(answered, poisoned))
        assert world.entries(target, port) != [entry]
        assert [kept.split()[-1]] == [
            line.split()[-1] for line in world.entries(target, f"sport={before.getsockname()[1]} ")
        ], "what works is left alone"
        assert await within(PATIENT, partial(answered, before))
        assert world.entries(f"sport={local.getsockname()[1]} "), "nobody translates these anyway"
        for sock in (before, poisoned, local):
            sock.close()
    assert "untranslated_connections_forgotten" in n1.log.read_text()


async def test_every_flow_begun_around_a_flush_is_answered_in_the_end(world: World) -> None:
    """The agent is there, and the hole is open for as long as the mending takes."""
    socks: list[socket.socket] = []

    async def begin() -> None:
        while True:
            socks.append(world.client(*FAMILIES[len(socks) % 2]))
            with contextlib.suppress(OSError):
                socks[-1].send(b"x")
            await asyncio.sleep(0.002)

    beginning = asyncio.create_task(begin())
    for enough in (20, 40, 60):
        await true(lambda enough=enough: len(socks) >= enough)  # type: ignore[misc]
        await asyncio.to_thread(world.n1.run, "nft", "delete", "table", "inet", "towpath")
        await asyncio.sleep(0.2)
    await world.n1.until(lambda: world.n1.observe().nft is not None)
    beginning.cancel()
    waiting = set(socks)

    def all_answered() -> bool:
        waiting.difference_update([sock for sock in waiting if answered(sock)])
        return not waiting

    assert await within(PATIENT, all_answered), len(waiting)
    for sock in socks:
        sock.close()
