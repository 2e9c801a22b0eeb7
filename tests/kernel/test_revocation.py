"""Flows that policy denies by now are cut, and no others: real packets, real conntrack, real sets."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from policed_node import PODS, A, B, PolicedNode, calico_policy, network_policy
from wired_node import NODE4, OUTSIDE4, OUTSIDE6

from patience import PATIENT, true
from towpath.agent.metrics import Metrics
from towpath.agent.revocation import Revocation, View
from towpath.agent.revocation_scope import touched
from towpath.desired import revocation
from towpath.desired.names import host_ifname
from towpath.desired.revocation import Flow
from towpath.desired.ruleset import TABLE
from towpath.kernel.netns import run_in
from towpath.model.attachment import PortMapping
from towpath.policy.causes import Cause
from towpath.policy.ir import Direction

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
NAMES = {host_ifname("default", name): f"Pod/default/{name}" for name in PODS}


class Node(PolicedNode):
    """With the agent's part that cuts flows; ``change`` is what its loop does when policies change."""

    enforced: frozenset[str] = frozenset({"Pod/default/a", "Pod/default/b"})

    def __init__(self) -> None:
        self.told: list[tuple[Flow, Direction, Cause]] = []
        super().__init__()
        self.revocation = self.another()

    def another(self) -> Revocation:
        """An agent that has just started."""

        async def tell(flow: Flow, direction: Direction, why: Cause) -> None:
            self.told.append((flow, direction, why))

        def view() -> View:
            return View(self.engine, self.local, self.enforced, NAMES, self.engine.verdicts)

        lock, metrics = asyncio.Lock(), Metrics()
        return run_in(self.netns, lambda: Revocation(view, self.kernel, lock, tell, metrics, time.monotonic))

    def reconcile(self) -> Any:
        if self.program is not None:
            self.program = replace(self.program, revoking=bool(self.enforced))
        self.planned = super().reconcile()
        return self.planned

    async def change(self, *objects: dict[str, Any]) -> None:
        self.enforce(*objects)
        await self.look()

    async def look(self) -> None:
        await self.revocation._look(touched(self.planned, NAMES, self.engine.verdicts))

    def close(self) -> None:
        self.revocation.close()
        super().close()


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


class Talk:
    """A connection, or two bound sockets that know each other; ``alive``: each side hears the other."""

    def __init__(
        self,
        node: Node,
        family: int,
        kind: int,
        port: int,
        *,
        server: int = 0,
        to: str = "",
        listen: str = "",
    ) -> None:
        version = socket.AF_INET6 if family else socket.AF_INET
        where = listen or B[family]
        listener = run_in(server or node.pods["b"], lambda: socket.socket(version, kind))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((where, port))
        self.client = run_in(node.pods["a"], lambda: socket.socket(version, kind))
        self.client.bind((A[family], 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
            self.client.settimeout(PATIENT)
            self.client.connect((to or where, port))
            self.server, _ = listener.accept()
            listener.close()
        else:
            self.client.connect((to or where, port))
            self.client.send(b"hello")
            listener.settimeout(PATIENT)
            _, peer = listener.recvfrom(16)
            listener.connect(peer)
            self.server = listener
        assert self.alive()

    def alive(self, patience: float = PATIENT) -> bool:
        return self.heard(self.client, self.server, patience) and self.heard(
            self.server, self.client, patience
        )

    def dead(self, patience: float = 0.2) -> bool:
        """Neither hears the other."""
        return not (
            self.heard(self.client, self.server, patience) or self.heard(self.server, self.client, patience)
        )

    @staticmethod
    def heard(sender: socket.socket, receiver: socket.socket, patience: float) -> bool:
        receiver.settimeout(patience)
        try:
            sender.send(b"x")
            return receiver.recv(64) != b""
        except OSError:
            return False

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def talk(node: Node) -> Iterator[Callable[..., Talk]]:
    made: list[Talk] = []

    def begin(*arguments: Any, **fields: Any) -> Talk:
        made.append(Talk(node, *arguments, **fields))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def only(port: int, app: str = "b") -> dict[str, Any]:
    ports = [{"port": port, "protocol": "TCP"}, {"port": port, "protocol": "UDP"}]
    return network_policy("only", app, policyTypes=["Ingress"], ingress=[{"ports": ports}])


@BOTH
@KINDS
async def test_established_flows_survive_by_default(
    node: Node, talk: Callable[..., Talk], family: int, kind: int
) -> None:
    node.enforced = frozenset()
    one = talk(family, kind, 80)
    await node.change(network_policy("shut", "b"))
    assert one.alive()
    assert "revoked" not in node.sh(node.netns, "nft list table inet towpath")


@BOTH
@KINDS
async def test_a_flow_that_is_denied_now_is_cut_and_another_is_not(
    node: Node, talk: Callable[..., Talk], family: int, kind: int
) -> None:
    doomed, other = talk(family, kind, 80), talk(family, kind, 81)
    await node.change(only(81))
    assert doomed.dead() and other.alive()
    ((flow, direction, why),) = node.told
    assert (str(flow.destination), flow.second, direction) == (B[family], 80, "ingress")
    assert (why.tier, why.policies) == ("default", ("NetworkPolicy/default/only",))


@BOTH
@KINDS
async def test_the_server_that_keeps_sending_does_not_bring_it_back(
    node: Node, talk: Callable[..., Talk], family: int, kind: int
) -> None:
    """Its own egress is allowed, and so would be the entry that its next packet makes."""
    one = talk(family, kind, 80)
    stop = asyncio.Event()

    async def send() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                one.server.send(b"s")
            await asyncio.sleep(0.002)

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.05)
    await node.change(network_policy("shut", "b"))
    one.client.settimeout(0.2)
    with contextlib.suppress(OSError):
        while one.client.recv(1 << 16):  # what was on its way
            pass
    await asyncio.sleep(0.5)
    stop.set()
    await sending
    with contextlib.suppress(OSError):
        assert one.client.recv(16) == b""  # a reset, seen before
    assert not one.heard(one.client, one.server, 0.2)


@BOTH
async def test_tcps_ends_are_told_by_a_reset(node: Node, talk: Callable[..., Talk], family: int) -> None:
    one = talk(family, socket.SOCK_STREAM, 80)
    await node.change(network_policy("shut", "b"))
    for end in (one.client, one.server):
        end.settimeout(PATIENT)
        end.send(b"x")
        with pytest.raises(ConnectionResetError):
            end.recv(16)


async def test_egress_outside_and_by_a_rule(node: Node, talk: Callable[..., Talk]) -> None:
    """Source NAT: what the answers' tuple has is the node's address."""
    for family, outside in enumerate((OUTSIDE4, OUTSIDE6)):
        node.enforce()
        one = talk(family, socket.SOCK_DGRAM, 80, server=node.world, listen=outside)
        deny = {"action": "Deny", "protocol": "UDP", "destination": {"ports": [80]}}
        rules = [deny, {"action": "Allow"}]
        await node.change(calico_policy("no", "a", types=["Egress"], egress=rules))
        assert one.dead()
        flow, direction, why = node.told.pop()
        assert (str(flow.destination), direction, why.path) == (outside, "egress", "spec.egress[0]")


async def test_a_flow_to_a_host_port_is_judged_by_where_it_ends(
    node: Node, talk: Callable[..., Talk]
) -> None:
    node.add("c", "10.42.1.4", pod=None, ports=(PortMapping(host_port=8080, container_port=8080),))
    one = talk(0, socket.SOCK_STREAM, 8080, server=node.pods["c"], to=NODE4, listen="10.42.1.4")
    deny = {"action": "Deny", "destination": {"nets": ["10.42.1.4/32"]}}
    await node.change(calico_policy("no", "a", types=["Egress"], egress=[deny, {"action": "Allow"}]))
    assert one.dead()
    assert node.told[0][0].destination == ip_address("10.42.1.4")


async def test_what_the_node_began_stays(node: Node) -> None:
    with run_in(node.pods["b"], lambda: socket.create_server((B[0], 80))) as listener:
        client = run_in(node.netns, lambda: socket.create_connection((B[0], 80), PATIENT))
        server, _ = listener.accept()
    with client, server:
        await node.change(network_policy("shut", "b"))
        assert Talk.heard(client, server, PATIENT) and Talk.heard(server, client, PATIENT)
    assert not node.told


async def test_a_pod_talks_to_itself(node: Node) -> None:
    with run_in(node.pods["b"], lambda: socket.create_server((B[0], 80))) as listener:
        client = run_in(node.pods["b"], lambda: socket.create_connection((B[0], 80), PATIENT))
        server, _ = listener.accept()
    with client, server:
        await node.change(network_policy("shut", "b"))
        assert Talk.heard(client, server, PATIENT)
    assert not node.told


async def test_pings_are_cut(node: Node) -> None:
    """In one direction: what the other side asks is another matter."""
    for family, (version, protocol, echo) in enumerate(
        ((socket.AF_INET, socket.IPPROTO_ICMP, 8), (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128))
    ):
        node.enforce()
        make = partial(socket.socket, version, socket.SOCK_RAW, protocol)
        with run_in(node.pods["a"], make) as one, run_in(node.pods["b"], make) as other:

            def asks(this: socket.socket, to: str, patience: float, echo: int = echo) -> bool:
                return _pinged(this, to, echo, patience)

            assert asks(one, B[family], PATIENT)
            await node.change(network_policy("shut", "b"))
            assert not asks(one, B[family], 0.3)
            assert asks(other, A[family], PATIENT)


async def test_what_is_allowed_again_works_at_once(node: Node, talk: Callable[..., Talk]) -> None:
    one = talk(0, socket.SOCK_DGRAM, 80)
    await node.change(network_policy("shut", "b"))
    assert one.dead()
    await node.change()
    assert one.alive()
    assert not node.revocation._cut


async def test_a_cut_flow_may_begin_anew_after_the_timeout(node: Node, talk: Callable[..., Talk]) -> None:
    """Should nobody be there to lift it."""
    one = talk(0, socket.SOCK_DGRAM, 80)
    source, port = one.client.getsockname()[:2]
    flow = Flow(ip_address(source), ip_address(B[0]), 17, port, 80)
    for milliseconds in (700, 7_000, 70_000):
        begun = time.monotonic()
        node.kernel.apply([revocation.cut([(flow, milliseconds)], TABLE)])
        dead = one.dead(0.1)
        remaining = set(node.kernel.remaining(TABLE, revocation.WITH_PORTS[4]))
        if time.monotonic() - begun < milliseconds / 1000:  # else the machine was too slow to look
            break
    assert dead
    assert remaining == {key for _, key in revocation.keys(flow)}
    await true(lambda: not node.kernel.remaining(TABLE, revocation.WITH_PORTS[4]))
    assert one.alive()
    assert node.reconcile() == ()


async def test_sets_are_nobodys_drift(node: Node, talk: Callable[..., Talk]) -> None:
    one = talk(0, socket.SOCK_STREAM, 80)
    await node.change(network_policy("shut", "b"))
    assert node.reconcile() == ()
    node.sh(node.netns, "nft add chain inet towpath unknown")  # so that everything is listed
    assert [op.describe() for op in node.reconcile()] == ["nft inet towpath: -chain unknown"]
    assert one.dead()


@KINDS
async def test_an_agent_that_died_between_set_and_deletion(
    node: Node, talk: Callable[..., Talk], kind: int
) -> None:
    """The next one deletes the entries, and hurts nothing else; it lifts what is allowed by then."""
    doomed, other = talk(0, kind, 80), talk(0, kind, 81)
    source, port = doomed.client.getsockname()[:2]
    flow = Flow(ip_address(source), ip_address(B[0]), 6 if kind == socket.SOCK_STREAM else 17, port, 80)
    node.enforce(only(81))
    node.kernel.apply([revocation.cut([(flow, 60_000)], TABLE)])
    node.revocation.close()
    node.revocation = node.another()
    await node.change(only(81))
    assert flow in node.revocation._cut
    assert flow not in {one.flow for one in node.revocation._table.flows([flow.source])}
    assert doomed.dead() and other.alive()


async def test_an_agent_lifts_what_one_before_it_has_cut(node: Node, talk: Callable[..., Talk]) -> None:
    one = talk(1, socket.SOCK_DGRAM, 80)
    await node.change(network_policy("shut", "b"))
    assert one.dead()
    node.revocation.close()
    node.revocation = node.another()
    await node.change(network_policy("shut", "b"))
    assert one.dead()
    await node.change()
    assert one.alive()


async def test_only_pods_under_enforcement(node: Node, talk: Callable[..., Talk]) -> None:
    node.enforced = frozenset({"Pod/default/a"})
    one = talk(0, socket.SOCK_STREAM, 80)
    await node.change(network_policy("shut", "b"))
    assert one.alive()
    node.enforced = frozenset({"Pod/default/b"})
    await node.change(network_policy("shut", "b"))
    assert one.dead()
    node.enforced = frozenset()
    await node.change(network_policy("shut", "b"))
    assert not node.revocation._cut


async def test_many_flows_do_not_hold_up_the_event_loop(node: Node) -> None:
    version = (socket.AF_INET, socket.SOCK_DGRAM)
    with run_in(node.pods["a"], lambda: socket.socket(*version)) as client:
        for port in range(1, 5001):
            client.sendto(b"x", (B[0], port))
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    node.enforce(network_policy("shut", "b"))
    watching = asyncio.create_task(watch())
    await node.look()
    watching.cancel()
    assert turns >= 100  # others had theirs after each few flows
    assert len(node.revocation._cut) == 5000 and len(node.told) == 20
    assert not node.revocation._table.flows([ip_address(B[0])])


def _pinged(one: socket.socket, to: str, echo: int, patience: float) -> bool:
    """Whether an answer comes to an echo request with number 7."""
    body = b"\0\7\0\1"
    total = (echo << 8) + 7 + 1
    one.sendto(bytes((echo, 0)) + (0xFFFF - total).to_bytes(2, "big") + body, (to, 0))
    answer = 0 if echo == 8 else 129
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        one.settimeout(left)
        try:
            data = one.recv(256)
        except TimeoutError:
            return False
        if echo == 8:
            data = data[20:]
        if data[0] == answer and data[4:6] == b"\0\7":
            return True
    return False
