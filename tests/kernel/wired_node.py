"""Nodes with pods, in namespaces of their own, and traffic between them.

The world beyond a ``WiredNode`` is both a neighbouring node (172.30.0.12, with pods behind it) and the
outside (198.51.100.2).
"""

import contextlib
import os
import socket
import subprocess
from ipaddress import ip_address
from typing import Any, Literal

from msgspec.structs import replace

from attachments import attachment
from nodes import DUAL, UNDERLAY, node, snapshot
from towpath.api.core import Node
from towpath.desired.node import node_state
from towpath.desired.ownership import Holdings
from towpath.desired.pods import born, pod_wiring
from towpath.desired.ruleset import TABLE
from towpath.desired.snapshot import Snapshot
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.attachment import Attachment
from towpath.model.net import Addr, Link, Veth
from towpath.model.op import AddLink, Op
from towpath.model.policy import Program
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

Proto = Literal["tcp", "udp"]
NODE4, NODE6 = "172.30.0.11", "fd00:172:30::11"
REMOTE_POD4, REMOTE_POD6 = "10.42.2.5", "fd00:10:42:2::5"
OUTSIDE4, OUTSIDE6 = "198.51.100.2", "2001:db8:51::2"
# A packet within the machine takes microseconds unless it is busy; one that is dropped costs DROPPED.
_PATIENCE, DROPPED = 60.0, 0.2
NIC_MAC, PEER_MAC = "0e:00:00:00:00:01", "0e:00:00:00:00:02"
NIC = Link(name="eth0", kind=Veth(peer="eth0", peer_mac=PEER_MAC, peer_mtu=1500), mtu=1500, mac=NIC_MAC)
ON_LINK: frozenset[Addr] = frozenset({ip_address("172.30.0.12"), ip_address("fd00:172:30::12")})


class Machine:
    """Node ``nNUMBER``: its namespace, its pods', and one turn of the agent's loop at a time."""

    def __init__(self, number: int) -> None:
        self.number, self.netns = number, new_netns()
        self.pods: dict[str, int] = {}
        self.network = DUAL
        self.nodes: tuple[Node, ...] = (node(1), node(2))
        self.on_link: frozenset[Addr] = frozenset()
        self.program: Program | None = None
        self.holdings: Holdings = {}
        self._attachments: list[Attachment] = []
        self.kernel = run_in(self.netns, LinuxKernel)

    def address_underlay(self) -> None:
        """Give the NIC, which is there by now, its addresses, and loopback its life."""
        last = 10 + self.number
        # Our own links come without a link-local address; a NIC has one, and asks its neighbours from it.
        self.sh(
            self.netns,
            f"""
            echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
            ip link set lo up; ip link set eth0 up
            ip addr add 172.30.0.{last}/24 dev eth0
            ip addr add fd00:172:30::{last}/64 dev eth0 nodad; ip addr add fe80::{last}/64 dev eth0 nodad
            """,
        )

    def snapshot(self) -> Snapshot:
        four, six = ip_address(f"172.30.0.{10 + self.number}"), ip_address(f"fd00:172:30::{10 + self.number}")
        return snapshot(
            *self.nodes,
            node_name=f"n{self.number}",
            network=self.network,
            underlay=replace(UNDERLAY, ipv4=four, ipv6=six, on_link=self.on_link),
            attachments=tuple(self._attachments),
            policy=self.program,
            holdings=self.holdings,
        )

    def reconcile(self) -> tuple[Op, ...]:
        """One turn of the agent's loop; returns the operations."""
        desired = node_state(self.snapshot())
        observed = self.kernel.observe(desired.state.sysctls, TABLE)
        ops = diff(observed, desired.state, desired.scope)
        self.kernel.apply(ops)
        return ops

    def add(self, name: str, *addresses: str, bind: bool = True, **fields: Any) -> Attachment:
        """Wire a pod as ADD does; ``bind`` False leaves the firewall in ignorance of it."""
        mac = f"0a:58:0a:2a:0{self.number}:{len(self.pods) + 2:02x}"
        att = attachment(name, *addresses, mac=mac, **fields)
        pod = self.pods[name] = new_netns()
        wiring = pod_wiring(att)
        ops = diff(NetState(), wiring.host, Scope())
        links: list[Op] = [op for op in ops if isinstance(op, AddLink)]
        self.kernel.apply(links, pod_netns=pod)
        inside = run_in(pod, LinuxKernel)
        inside.apply(diff(born(att), wiring.inside, Scope()))
        inside.close()
        self.kernel.apply([op for op in ops if op not in links])
        if bind:
            self._attachments.append(att)
            self.reconcile()
        return att

    def sh(self, netns: int, command: str) -> str:
        """Run a shell command in a namespace."""
        path = f"/proc/{os.getpid()}/fd/{netns}"
        done = subprocess.run(
            ["nsenter", f"--net={path}", "sh", "-ec", command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        self.kernel.close()
        for fd in (self.netns, *self.pods.values()):
            os.close(fd)


class WiredNode(Machine):
    """Node ``n1`` of a dual-stack cluster with DirectRouting to ``n2``, which is the world."""

    def __init__(self) -> None:
        super().__init__(1)
        self.node, self.world = self.netns, new_netns()
        self.network, self.on_link = replace(DUAL, direct_routing=True), ON_LINK
        self.kernel.apply([AddLink(NIC)], pod_netns=self.world)
        self.sh(
            self.world,
            f"""
            echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
            ip link set lo up; ip link set eth0 up
            ip addr add 172.30.0.12/24 dev eth0; ip addr add fd00:172:30::12/64 dev eth0 nodad
            for a in {REMOTE_POD4} {OUTSIDE4}; do ip addr add $a dev lo; done
            for a in {REMOTE_POD6} {OUTSIDE6}; do ip addr add $a dev lo nodad; done
            ip route add 10.42.1.0/24 via {NODE4}; ip route add fd00:10:42:1::/64 via {NODE6}
            """,
        )
        self.address_underlay()
        self.sh(
            self.node, "ip route add default via 172.30.0.12; ip -6 route add default via fd00:172:30::12"
        )
        self.reconcile()

    def close(self) -> None:
        super().close()
        os.close(self.world)


def two_nodes() -> tuple[Machine, Machine]:
    """Nodes ``n1`` and ``n2`` on one wire, nothing else done."""
    first, second = Machine(1), Machine(2)
    first.kernel.apply([AddLink(NIC)], pod_netns=second.netns)
    first.address_underlay()
    second.address_underlay()
    return first, second


def reach(
    source: int,
    sink: int,
    dst: str,
    port: int,
    *,
    listen: int = 0,
    proto: Proto = "tcp",
    bind: str = "",
    patience: float = _PATIENCE,
) -> str | None:
    """Speak from namespace ``source`` to ``dst``; the address a server in ``sink`` saw, None if it saw none.

    The server listens on ``listen``, where that differs from ``port``. Its answer must come back too.
    """
    family = socket.AF_INET6 if ":" in dst else socket.AF_INET
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    with _socket(sink, family, kind, patience) as server, _socket(source, family, kind, patience) as client:
        # A UDP server that has many addresses must answer from the one it was called by.
        server.bind((dst if proto == "udp" and not listen else "", listen or port))
        if bind:
            client.bind((bind, 0))
        if proto == "tcp":
            server.listen()
        with contextlib.suppress(OSError):
            client.connect((dst, port))
            client.send(b"ping")
            return _answered(server, client, proto)
    return None


def _answered(server: socket.socket, client: socket.socket, proto: Proto) -> str | None:
    if proto == "udp":
        _, peer = server.recvfrom(16)
        server.sendto(b"pong", peer)
    else:
        connection, peer = server.accept()
        with connection:
            connection.sendall(b"pong")
    seen: str = peer[0]
    return seen if client.recv(16) == b"pong" else None


def dropped(source: int, sink: int, dst: str, port: int, *, listen: int = 0, bind: str = "") -> bool:
    """Whether nothing of a TCP connection arrives."""
    return reach(source, sink, dst, port, listen=listen, bind=bind, patience=DROPPED) is None


def _socket(netns: int, family: int, kind: int, patience: float) -> socket.socket:
    made = run_in(netns, lambda: socket.socket(family, kind))
    made.settimeout(patience)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made
