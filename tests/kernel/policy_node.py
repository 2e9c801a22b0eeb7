"""A real node whose pods are judged by a program, and packets sent across it, many at once.

Its addresses are those of the drawn worlds: three pods of its own, itself, and behind the wire all others.
"""

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from frames import number_of, packet
from msgspec.structs import replace
from wired_node import NIC_MAC, PEER_MAC, WiredNode

from towpath.desired.names import HOST_MAC, host_ifname
from towpath.desired.snapshot import Snapshot
from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.netns import run_in
from towpath.model.net import Addr
from towpath.model.policy import Program
from towpath.policy.evaluate import Flow
from towpath.policy.ir import ICMP, ICMPV6, SCTP, TCP, UDP

GRE = 47
PROTOCOLS = (TCP, UDP, SCTP, ICMP, ICMPV6, GRE)
HERE: tuple[Addr, ...] = (ip_address("10.0.0.0"), ip_address("fd00::"))
LOCAL: tuple[tuple[Addr, ...], ...] = tuple(
    (ip_address(f"10.0.0.{n}"), ip_address(f"fd00::{n}")) for n in (1, 2, 3)
)
INTERFACES = tuple(host_ifname("default", f"pod{n}") for n in range(len(LOCAL)))
_NFNETLINK, _CT_DELETE = 12, 0x0102
_ETH_ALL, _OUTGOING = 3, 4
_IPV6_HDRINCL = 36
_AT_ONCE = 64  # what a receive buffer surely holds
_PATIENCE = 120.0


class JudgedNode(WiredNode):
    """``program`` is what its policy is; ``reconcile`` brings it."""

    def __init__(self) -> None:
        self.program: Program | None = None
        super().__init__()
        # The world is known from the start: the first packets need not wait for an answer.
        self.sh(
            self.netns,
            f"""
            ip neigh replace 172.30.0.12 lladdr {PEER_MAC} dev eth0 nud permanent
            ip -6 neigh replace fd00:172:30::12 lladdr {PEER_MAC} dev eth0 nud permanent
            ip addr add {HERE[0]}/32 dev lo; ip addr add {HERE[1]}/128 dev lo nodad
            """,
        )
        for number, addresses in enumerate(LOCAL):
            self.add(f"pod{number}", *map(str, addresses))
        self._tracked = run_in(self.netns, lambda: NetlinkSocket.open(_NFNETLINK))
        self._numbers = itertools.count(1)
        outside = _Wire(self.world, PEER_MAC, NIC_MAC)
        pods = [_Wire(netns, "0a:58:0a:2a:00:05", HOST_MAC) for netns in self.pods.values()]
        self._places: list[_Wire | _Inside] = [*pods, _Inside(self.netns), outside]

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), policy=self.program)

    def forget(self) -> None:
        """Every flow is a new one from now on."""
        assert self._tracked.request([Message(_CT_DELETE, 0, b"\0\0\0\0")]) == []

    def arrived(self, flows: Sequence[Flow], expected: Sequence[bool]) -> list[bool]:
        """Which of the flows' first packets come to where they are sent to. Waits for those that should."""
        found: list[bool] = []
        for start in range(0, len(flows), _AT_ONCE):
            end = start + _AT_ONCE
            found += self._arrived(flows[start:end], expected[start:end])
        return found

    def place(self, address: Addr) -> int:
        """Pods first, then the node, then all else."""
        for number, addresses in enumerate((*LOCAL, HERE)):
            if address in addresses:
                return number
        return len(self._places) - 1

    def close(self) -> None:
        for place in self._places:
            place.close()
        self._tracked.close()
        super().close()

    def _arrived(self, flows: Sequence[Flow], expected: Sequence[bool]) -> list[bool]:
        # What the node itself sends is judged by nothing, and comes after what was sent before it.
        ends = [Flow(source=HERE[0], destination=a[0], protocol=UDP, destination_port=7) for a in LOCAL]
        ends.append(replace(ends[0], destination=ip_address("172.30.0.12")))
        sent = [(self.place(flow.destination), next(self._numbers)) for flow in (*flows, *ends)]
        for flow, (_, number) in zip((*flows, *ends), sent, strict=True):
            self._places[self.place(flow.source)].send(packet(flow, number), flow.destination)
        awaited = {one for one, wanted in zip(sent, (*expected, *[True] * len(ends)), strict=True) if wanted}
        seen: set[tuple[int, int]] = set()
        deadline = time.monotonic() + _PATIENCE
        while not awaited <= seen and time.monotonic() < deadline:
            sockets = [s for place in self._places for s in place.sockets]
            select.select(sockets, [], [], 0.1)
            for where, place in enumerate(self._places):
                seen.update((where, number) for number in place.received())
        return [one in seen for one in sent[: len(flows)]]


class _Wire:
    """The end of a link: what is sent goes out as it is, what is received is all that comes in."""

    def __init__(self, netns: int, own: str, gateway: str) -> None:
        self._head = bytes.fromhex((gateway + own).replace(":", ""))
        made = run_in(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL)))
        made.bind(("eth0", _ETH_ALL))
        self.sockets = _ready([made])

    def send(self, data: bytes, destination: Addr) -> None:
        kind = b"\x08\x00" if destination.version == 4 else b"\x86\xdd"
        self.sockets[0].send(self._head + kind + data)

    def received(self) -> Iterator[int]:
        for data, address in _all(self.sockets[0]):
            number = number_of(data)
            if number is not None and address[2] != _OUTGOING:
                yield number

    def close(self) -> None:
        self.sockets[0].close()


class _Inside:
    """The node itself: what comes in has passed its firewall, what goes out does."""

    def __init__(self, netns: int) -> None:
        families = (socket.AF_INET, socket.AF_INET6)
        self.sockets = _ready(
            run_in(netns, lambda: [socket.socket(f, socket.SOCK_RAW, p) for f in families for p in PROTOCOLS])
        )
        self._out = run_in(
            netns, lambda: [socket.socket(f, socket.SOCK_RAW, socket.IPPROTO_RAW) for f in families]
        )
        self._out[1].setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)

    def send(self, data: bytes, destination: Addr) -> None:
        self._out[destination.version == 6].sendto(data, (str(destination), 0))

    def received(self) -> Iterator[int]:
        for one in self.sockets:
            for data, _ in _all(one):
                number = number_of(data)
                if number is not None:
                    yield number

    def close(self) -> None:
        for one in (*self.sockets, *self._out):
            one.close()


def _ready(sockets: list[socket.socket]) -> list[socket.socket]:
    for one in sockets:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return sockets


def _all(one: socket.socket) -> Iterator[tuple[bytes, tuple[str, int, int]]]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield one.recvfrom(256)
