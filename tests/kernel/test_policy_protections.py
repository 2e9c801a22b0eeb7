"""A pod, or a stranger, that says it is a node or another pod: nothing of it arrives."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from msgspec.structs import replace
from wired_node import DROPPED, Machine, dropped, reach, two_nodes

from nodes import DUAL, mac, node, telling
from towpath.api.report import ACCEPTED, REFUSED
from towpath.desired.names import HOST_LL, host_ifname
from towpath.kernel.netns import run_in

pytestmark = pytest.mark.kernel

A, B = ("10.42.1.2", "fd00:10:42:1::2"), ("10.42.2.2", "fd00:10:42:2::2")
C = ("10.42.1.3", "fd00:10:42:1::3")
N1, N2 = ("172.30.0.11", "fd00:172:30::11"), ("172.30.0.12", "fd00:172:30::12")
VTEP1, VTEP2 = ("10.42.1.0", "fd00:10:42:1::"), ("10.42.2.0", "fd00:10:42:2::")
GHOST1, GHOST2 = ("10.42.1.77", "fd00:10:42:1::77"), ("10.42.2.77", "fd00:10:42:2::77")
NOBODY = ("10.42.1.99", "fd00:10:42:1::99")
STRANGER = ("172.30.0.66", "fd00:172:30::66")
PORT = 8472
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Machine, Machine]]:
    made = two_nodes()
    for machine in made:
        machine.nodes = (telling(node(1), REFUSED), telling(node(2), REFUSED))
    one, two = made
    one.add("a", *A)
    one.add("c", *C)
    two.add("b", *B)
    for four, six in (GHOST1, GHOST2):
        two.sh(two.netns, f"ip addr add {four} dev lo; ip addr add {six} dev lo nodad")
    two.sh(two.netns, f"ip addr add {STRANGER[0]}/24 dev eth0; ip addr add {STRANGER[1]}/64 dev eth0 nodad")
    yield made
    for machine in made:
        machine.close()


@contextlib.contextmanager
def without(machine: Machine, chain: str) -> Iterator[None]:
    """The rules of a chain taken out: what then arrives was stopped by them."""
    machine.sh(machine.netns, f"nft flush chain inet towpath {chain}")
    try:
        yield
    finally:
        assert [op.describe().split(" (")[0] for op in machine.reconcile()] == [
            f"nft inet towpath: chain {chain}"
        ]


def arrives(source: int, sink: int, to: tuple[str, int], payload: bytes, at: str, bind: str = "") -> bool:
    """Whether what ``payload`` carries, a datagram to port 7 of ``at`` in ``sink``, gets there."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    server = run_in(sink, lambda: socket.socket(family, socket.SOCK_DGRAM))
    client = run_in(source, lambda: socket.socket(family, socket.SOCK_DGRAM))
    with server, client:
        server.bind((at, 7))
        server.settimeout(DROPPED)
        if bind:
            client.bind((bind, 0))
        for _ in range(3):  # of a new flow with an unknown neighbour the first may wait
            client.sendto(payload, to)
        with contextlib.suppress(TimeoutError):
            return server.recv(64) == b"forged"
    return False


def forged(number: int, source: str, dst: str) -> bytes:
    """A VXLAN frame to node ``nNUMBER`` with a datagram to port 7 of ``dst``."""
    udp = struct.pack("!HHHH", 7, 7, 14, 0) + b"forged"
    src, to = ip_address(source).packed, ip_address(dst).packed
    if ":" in dst:
        udp = udp[:6] + _checksum(src + to + struct.pack("!II", 14, 17) + udp) + udp[8:]
        packet = struct.pack("!IHBB", 6 << 28, 14, 17, 64) + src + to + udp
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 34, 1, 0, 64, 17, 0) + src + to
        packet = head[:10] + _checksum(head) + head[12:] + udp
    kind = b"\x86\xdd" if ":" in dst else b"\x08\x00"
    target = bytes.fromhex(mac(number, 6 if ":" in dst else 4).replace(":", ""))
    return b"\x08\0\0\0\0\0\1\0" + target + bytes.fromhex("0e0000000999") + kind + packet


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


@BOTH
def test_a_pod_cannot_speak_vxlan_to_its_own_node(pair: tuple[Machine, Machine], family: int) -> None:
    one, _ = pair
    frame = forged(1, GHOST2[family], C[family])
    for address in (N1[family], VTEP1[family]):
        assert not arrives(one.pods["a"], one.pods["c"], (address, PORT), frame, C[family])
    with without(one, "tunnel"):
        assert arrives(one.pods["a"], one.pods["c"], (N1[family], PORT), frame, C[family])


@BOTH
def test_a_pod_cannot_speak_vxlan_to_another_node(pair: tuple[Machine, Machine], family: int) -> None:
    # The other node would see this one's address, and believe it.
    one, two = pair
    frame = forged(2, NOBODY[family], B[family])
    for address in (N2[family], VTEP2[family]):
        assert not arrives(one.pods["a"], two.pods["b"], (address, PORT), frame, B[family])
    with without(one, "to_tunnel"):
        assert arrives(one.pods["a"], two.pods["b"], (N2[family], PORT), frame, B[family])


@BOTH
def test_nor_by_way_of_a_service(pair: tuple[Machine, Machine], family: int) -> None:
    one, two = pair
    frame = forged(2, NOBODY[family], B[family])
    service = ("10.96.0.9", "fd00:10:96::9")[family]
    ip, target = (("ip", N2[0]), ("ip6", f"[{N2[1]}]"))[family]
    one.sh(
        one.netns,
        "nft 'add table inet svc; add chain inet svc c { type nat hook prerouting priority -100; };"
        f" add rule inet svc c {ip} daddr {service} udp dport 53 dnat {ip} to {target}:{PORT}'",
    )
    try:
        assert not arrives(one.pods["a"], two.pods["b"], (service, 53), frame, B[family])
        with without(one, "to_tunnel"):
            assert arrives(one.pods["a"], two.pods["b"], (service, 53), frame, B[family])
    finally:
        one.sh(one.netns, "nft delete table inet svc")


@BOTH
def test_pods_may_have_an_overlay_of_their_own(pair: tuple[Machine, Machine], family: int) -> None:
    one, two = pair
    assert reach(one.pods["a"], one.pods["c"], C[family], PORT, proto="udp") == A[family]
    assert reach(one.pods["a"], two.pods["b"], B[family], PORT, proto="udp") == A[family]


@BOTH
def test_only_peers_may_speak_vxlan(pair: tuple[Machine, Machine], family: int) -> None:
    one, two = pair
    frame = forged(1, GHOST2[family], A[family])
    to = (N1[family], PORT)
    assert not arrives(two.netns, one.pods["a"], to, frame, A[family], bind=STRANGER[family])
    assert arrives(two.netns, one.pods["a"], to, frame, A[family], bind=N2[family])
    with without(one, "tunnel"):
        assert arrives(two.netns, one.pods["a"], to, frame, A[family], bind=STRANGER[family])


@BOTH
@pytest.mark.parametrize("ghost", [GHOST1, GHOST2], ids=["own", "a peer's"])
def test_pods_do_not_come_by_the_wire(
    pair: tuple[Machine, Machine], family: int, ghost: tuple[str, str]
) -> None:
    one, two = pair
    route = f"ip {('', '-6')[family]} route {{}} {A[family]} via {N1[family]} dev eth0"
    ask = (two.netns, one.pods["a"], (A[family], 7), b"forged", A[family], ghost[family])
    with without(two, "masq"):
        two.sh(two.netns, route.format("add"))
        try:
            assert not arrives(*ask)
            assert dropped(two.netns, one.netns, N1[family], 80, bind=ghost[family])
            with without(one, "origin"):
                assert arrives(*ask)
        finally:
            two.sh(two.netns, route.format("del"))


@BOTH
def test_nor_do_a_nodes_own_by_the_tunnel(pair: tuple[Machine, Machine], family: int) -> None:
    one, two = pair
    ask = (two.netns, one.pods["a"], (A[family], 7), b"forged", A[family])
    with without(two, "masq"):
        assert arrives(*ask, bind=GHOST2[family])
        assert not arrives(*ask, bind=GHOST1[family])
        with without(one, "origin"):
            assert arrives(*ask, bind=GHOST1[family])


@BOTH
def test_where_nodes_route_directly_peers_pods_do_come_by_the_wire(
    pair: tuple[Machine, Machine], family: int
) -> None:
    one, two = pair
    before = [(machine.network, machine.nodes, machine.on_link) for machine in pair]
    try:
        for backend in ("vxlan", "host-gw"):
            for machine in pair:
                machine.network = replace(DUAL, backend=backend, direct_routing=True)
                machine.nodes = tuple(telling(node(n, backend), ACCEPTED) for n in (1, 2))
                machine.on_link = frozenset(map(ip_address, N1 + N2))
                machine.reconcile()
            assert reach(two.pods["b"], one.pods["a"], A[family], 80) == B[family]
            assert reach(one.pods["a"], two.pods["b"], B[family], 80) == A[family]
            with without(two, "masq"):
                assert dropped(two.netns, one.pods["a"], A[family], 80, bind=GHOST1[family])
    finally:
        for machine, (machine.network, machine.nodes, machine.on_link) in zip(pair, before, strict=True):
            machine.reconcile()
    assert reach(two.pods["b"], one.pods["a"], A[family], 80) == B[family]


def test_link_local_addresses_of_pods_reach_the_node_only(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    pod = one.pods["a"]
    one.sh(pod, "ip addr add fe80::99/64 dev eth0 nodad")
    inside = _index(one, pod, "eth0")
    outside = _index(one, one.netns, host_ifname("default", "a"))
    assert _datagram(pod, (one.netns, str(HOST_LL), outside), inside)
    for sink, dst in ((one.pods["c"], C[1]), (two.pods["b"], B[1]), (one.netns, N1[1])):
        assert not _datagram(pod, (sink, dst, 0), inside)


def _datagram(source: int, sink: tuple[int, str, int], link: int) -> bool:
    """Whether a datagram from fe80::99 arrives."""
    netns, address, scope = sink
    server = run_in(netns, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    client = run_in(source, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with server, client:
        server.bind((address, 7, 0, scope))
        server.settimeout(DROPPED)
        client.bind(("fe80::99", 0, 0, link))
        with contextlib.suppress(TimeoutError):
            client.sendto(b"hello", (address, 7, 0, link if scope else 0))
            return server.recv(64) == b"hello"
    return False


def _index(machine: Machine, netns: int, dev: str) -> int:
    return int(machine.sh(netns, f"ip -o link show {dev}").split(":")[0])
