"""What only a node itself may say, said by others: 127.0.0.0/8, its own address, a router's advertisements.

Each is shown to arrive when the rules in question are taken out, with the kernel's own checks turned off.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from policed_node import A, B, PolicedNode, network_policy
from wired_node import DROPPED, NIC_MAC, NODE4, NODE6

from patience import PATIENT
from towpath.agent.drops import dropped
from towpath.desired.names import HOST_LL, HOST_MAC, host_ifname
from towpath.kernel.netns import run_in

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
NODE, LENGTH = (NODE4, NODE6), (32, 128)
PORT = 7777
POD_LL = "fe80::99"
ALL_NODES = "ff02::1"
# What the kernel checks by itself, or as kube-proxy leaves it (route_localnet).
_TRUSTING = """
cd /proc/sys/net/ipv4/conf
for dev in all eth0 {dev}; do
    echo 1 > $dev/accept_local; echo 1 > $dev/route_localnet; echo 0 > $dev/rp_filter
done
"""
SOLICITATION, ADVERTISEMENT, REDIRECT, NEIGHBOUR, REPORT = 133, 134, 137, 135, 143


@pytest.fixture(scope="module")
def shared() -> Iterator[PolicedNode]:
    made = PolicedNode()
    dev = host_ifname("default", "a")
    made.sh(made.netns, _TRUSTING.format(dev=dev))
    made.sh(made.pods["a"], f"ip addr add {POD_LL}/64 dev eth0 nodad")
    yield made
    made.close()


@pytest.fixture
def node(shared: PolicedNode) -> Iterator[PolicedNode]:
    """As it should be, and without policies, before and after."""
    yield shared
    shared.enforce()


@contextlib.contextmanager
def without(node: PolicedNode, *chains: str) -> Iterator[None]:
    """The rules of some chains taken out."""
    for chain in chains:
        node.sh(node.netns, f"nft flush chain inet towpath {chain}")
    try:
        yield
    finally:
        node.reconcile()


def udp(source: str, dst: str) -> bytes:
    """An IPv4 datagram to ``PORT``."""
    body = struct.pack("!HHHH", 5000, PORT, 12, 0) + b"ping"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(dst)
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + body


@pytest.mark.parametrize("by", ["a pod", "the wire"])
@pytest.mark.parametrize(
    ("source", "dst"),
    [("own", "127.0.0.1"), ("127.0.0.1", NODE4), ("127.9.9.9", "127.0.0.53")],
    ids=["to", "from", "both"],
)
def test_loopback_addresses_come_by_no_other_interface(
    node: PolicedNode, by: str, source: str, dst: str
) -> None:
    pod = by == "a pod"
    netns, mac, own = (node.pods["a"], HOST_MAC, A[0]) if pod else (node.world, NIC_MAC, "172.30.0.12")
    packet = udp(own if source == "own" else source, dst)
    server = run_in(node.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    wire = run_in(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
    with server, wire:
        server.bind(("", PORT))
        server.settimeout(DROPPED)
        where = ("eth0", 0x0800, 0, 0, bytes.fromhex(mac.replace(":", "")))
        wire.sendto(packet, where)
        with pytest.raises(TimeoutError):
            server.recv(64)
        with without(node, "prerouting"):
            server.settimeout(PATIENT)
            wire.sendto(packet, where)
            assert server.recv(64) == b"ping"


def test_what_is_dropped_is_counted_by_why(node: PolicedNode) -> None:
    pod, mac = node.pods["a"], bytes.fromhex(HOST_MAC.replace(":", ""))
    node.enforce(network_policy("shut", "b", policyTypes=["Ingress"]))

    def counted() -> dict[str, float]:
        return {one.labels[0]: one.value for one in run_in(node.netns, lambda: list(dropped()))}

    def sent(reason: str, send: Callable[[], object]) -> bool:
        before = counted()
        send()
        after = counted()  # (the veth hands a packet over while it is sent, or soon after)
        deadline = time.monotonic() + PATIENT
        while after.get(reason, 0) == before.get(reason, 0) and time.monotonic() < deadline:
            after = counted()
        return after[reason] > before.get(reason, 0)

    with (
        run_in(pod, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)) as wire,
        icmpv6(pod, "eth0", POD_LL) as mouth,
    ):
        where = ("eth0", 0x0800, 0, 0, mac)
        assert sent("loopback", lambda: wire.sendto(udp(A[0], "127.0.0.1"), where))
        assert sent("spoofed", lambda: wire.sendto(udp("10.42.1.77", B[0]), where))
        assert sent("policy", lambda: wire.sendto(udp(A[0], B[0]), where))
        advertisement = bytes((ADVERTISEMENT, 0, 0, 0)) + bytes(12)
        assert sent("router", lambda: mouth.sendto(advertisement, (ALL_NODES, 0)))
    assert run_in(node.world, lambda: list(dropped())) == [], "no table is there"


@BOTH
def test_the_nodes_address_does_not_make_a_stranger_the_node(node: PolicedNode, family: int) -> None:
    """The node's own packets to pods are never judged; by where they come from, and not by their source."""
    ip, nodad = (("ip", ""), ("ip -6", "nodad"))[family]
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    node.sh(node.world, f"{ip} addr add {NODE[family]}/{LENGTH[family]} dev lo {nodad}")
    # Which makes the node itself unreachable from there, but for its link-layer address.
    node.sh(
        node.world,
        f"{ip} route add {B[family]} dev eth0; {ip} neigh add {B[family]} dev eth0 lladdr {NIC_MAC}",
    )
    server = run_in(node.pods["b"], lambda: socket.socket(kind, socket.SOCK_DGRAM))
    client = run_in(node.world, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    try:
        with server, client:
            server.bind((B[family], PORT))
            client.bind((NODE[family], 0))
            node.enforce(network_policy("shut", "b", policyTypes=["Ingress"]))
            server.settimeout(DROPPED)
            client.sendto(b"ping", (B[family], PORT))
            with pytest.raises(TimeoutError):
                server.recv(16)
            node.enforce()
            server.settimeout(PATIENT)
            client.sendto(b"ping", (B[family], PORT))
            assert server.recv(16) == b"ping"
    finally:
        node.sh(node.world, f"{ip} neigh del {B[family]} dev eth0; {ip} route del {B[family]} dev eth0")
        node.sh(node.world, f"{ip} addr del {NODE[family]}/{LENGTH[family]} dev lo")


@contextlib.contextmanager
def icmpv6(netns: int, dev: str, source: str = "") -> Iterator[socket.socket]:
    """A raw socket at an interface, in the groups that neighbour discovery uses."""
    with run_in(
        netns, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    ) as made:
        index = run_in(netns, lambda: socket.if_nametoindex(dev))
        for group in (ALL_NODES, "ff02::2", "ff02::16"):
            member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        if source:
            made.bind((source, 0, 0, index))
        yield made


def told(ear: socket.socket, kind: int, patience: float) -> bool:
    """Whether a message of this type with our words in it comes."""
    ear.settimeout(patience)
    with contextlib.suppress(TimeoutError):
        while True:
            message = ear.recv(256)
            if message[0] == kind and message.endswith(b"ours"):
                return True
    return False


@pytest.mark.parametrize("dst", [ALL_NODES, str(HOST_LL)], ids=["all", "the node"])
@pytest.mark.parametrize("kind", [ADVERTISEMENT, REDIRECT], ids=["advertisement", "redirect"])
def test_a_pod_is_no_router(node: PolicedNode, kind: int, dst: str) -> None:
    dev = host_ifname("default", "a")
    message = bytes((kind, 0, 0, 0)) + bytes(12) + b"ours"
    with icmpv6(node.netns, dev) as ear, icmpv6(node.pods["a"], "eth0", POD_LL) as mouth:
        mouth.sendto(message, (dst, 0))
        assert not told(ear, kind, DROPPED)
        with without(node, "antispoof", "input"):  # (to conntrack, a redirect is invalid as well)
            mouth.sendto(message, (dst, 0))
            assert told(ear, kind, 5)


@pytest.mark.parametrize("kind", [SOLICITATION, NEIGHBOUR, REPORT], ids=["router", "neighbour", "listeners"])
def test_neighbour_discovery_reaches_the_node_whatever_policies_say_and_nobody_else(
    node: PolicedNode, kind: int
) -> None:
    node.enforce(network_policy("shut", "a", policyTypes=["Egress"]))
    dev, other = host_ifname("default", "a"), host_ifname("default", "b")
    message = bytes((kind, 0, 0, 0)) + bytes(20) + b"ours"
    with (
        icmpv6(node.netns, dev) as ear,
        icmpv6(node.pods["b"], "eth0") as neighbour,
        icmpv6(node.netns, other) as beside,
        icmpv6(node.world, "eth0") as far,
        icmpv6(node.pods["a"], "eth0", POD_LL) as mouth,
    ):
        for dst in (ALL_NODES, "ff02::16"):
            mouth.sendto(message, (dst, 0))
            assert told(ear, kind, 5)
        for others in (neighbour, beside, far):
            assert not told(others, kind, 0.05)
