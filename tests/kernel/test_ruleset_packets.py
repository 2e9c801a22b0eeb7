"""Real packets through the whole table: the main verdicts, in both families."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from wired_node import (
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    REMOTE_POD4,
    REMOTE_POD6,
    Proto,
    WiredNode,
    dropped,
    reach,
)

from patience import PATIENT
from towpath.desired.names import HOST_MAC
from towpath.desired.node import node_state
from towpath.desired.ruleset import TABLE
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.model.attachment import PortMapping
from towpath.reconcile.diff import diff

pytestmark = pytest.mark.kernel

A = ("10.42.1.2", "fd00:10:42:1::2")
B = ("10.42.1.3", "fd00:10:42:1::3")
NODE, OUTSIDE, REMOTE = (NODE4, NODE6), (OUTSIDE4, OUTSIDE6), (REMOTE_POD4, REMOTE_POD6)
WORLD = ("172.30.0.12", "fd00:172:30::12")
_NODAD = ("", "nodad")
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORTS = (
    PortMapping(host_port=8080, container_port=80),
    PortMapping(host_port=5353, container_port=53, protocol="udp"),
    PortMapping(host_port=8081, container_port=81, host_ip=ip_address(NODE4)),
    PortMapping(host_port=8081, container_port=81, host_ip=ip_address(NODE6)),
    PortMapping(host_port=8082, container_port=82, host_ip=ip_address("127.0.0.1")),
    PortMapping(host_port=8083, container_port=83, host_ip=ip_address("0.0.0.0")),
    PortMapping(host_port=3868, container_port=3869, protocol="sctp"),
)


@pytest.fixture(scope="module")
def net() -> Iterator[WiredNode]:
    made = WiredNode()
    made.add("a", *A)
    made.add("b", *B, ports=PORTS)
    made.add("unknown", "10.42.1.9", "fd00:10:42:1::9", bind=False)
    yield made
    made.close()


@BOTH
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_inside_the_cluster_nobody_is_masqueraded(net: WiredNode, family: int, proto: Proto) -> None:
    pods = net.pods
    assert reach(pods["a"], pods["b"], B[family], 80, proto=proto) == A[family]
    assert reach(pods["a"], net.world, REMOTE[family], 80, proto=proto) == A[family]
    assert reach(net.world, pods["a"], A[family], 80, proto=proto, bind=REMOTE[family]) == REMOTE[family]
    assert reach(pods["a"], net.node, NODE[family], 80, proto=proto) == A[family]
    assert reach(net.node, pods["a"], A[family], 80, proto=proto) is not None


@BOTH
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_to_the_outside_pods_are_the_node(net: WiredNode, family: int, proto: Proto) -> None:
    assert reach(net.pods["a"], net.world, OUTSIDE[family], 80, proto=proto) == NODE[family]


@BOTH
def test_from_outside_a_pod_sees_the_client(net: WiredNode, family: int) -> None:
    assert reach(net.world, net.pods["a"], A[family], 80, bind=OUTSIDE[family]) == OUTSIDE[family]


@BOTH
def test_from_outside_to_another_nodes_pod_the_node_is_in_between(net: WiredNode, family: int) -> None:
    source = ("198.51.100.77", "2001:db8:51::77")[family]
    net.sh(net.node, f"ip addr add {source} dev lo {_NODAD[family]}")
    try:
        assert reach(net.node, net.world, REMOTE[family], 80, bind=source) == NODE[family]
    finally:
        net.sh(net.node, f"ip addr del {source} dev lo")


@BOTH
def test_a_packet_kube_proxy_has_marked_is_left_to_it(net: WiredNode, family: int) -> None:
    # 0x14000: kube-proxy's bit together with one of Calico's. Nobody here masquerades it then.
    net.sh(
        net.node,
        "nft 'add table inet marker; add chain inet marker c { type filter hook prerouting priority 0; };"
        ' add rule inet marker c iifname "cali*" tcp dport 90 meta mark set 0x14000\'',
    )
    try:
        assert reach(net.pods["a"], net.world, OUTSIDE[family], 90) == A[family]
    finally:
        net.sh(net.node, "nft delete table inet marker")


@BOTH
@pytest.mark.parametrize("where", ["pod", "world", "node"])
def test_a_spoofed_source_is_dropped(net: WiredNode, family: int, where: str) -> None:
    stolen = (B[0], B[1])[family]
    net.sh(net.pods["a"], f"ip addr add {stolen} dev lo {_NODAD[family]}")
    try:
        sink, dst = {
            "pod": (net.pods["b"], B[family]),
            "world": (net.world, OUTSIDE[family]),
            "node": (net.node, NODE[family]),
        }[where]
        assert dropped(net.pods["a"], sink, dst, 80, bind=stolen)
        if where != "pod":
            assert reach(net.pods["a"], sink, dst, 80, bind=A[family]) is not None
    finally:
        net.sh(net.pods["a"], f"ip addr del {stolen} dev lo")


@BOTH
def test_an_interface_the_firewall_does_not_know_sends_and_receives_nothing(
    net: WiredNode, family: int
) -> None:
    unknown = net.pods["unknown"]
    own = ("10.42.1.9", "fd00:10:42:1::9")[family]
    assert dropped(unknown, net.node, NODE[family], 80)
    assert dropped(unknown, net.pods["a"], A[family], 80)
    assert dropped(unknown, net.world, OUTSIDE[family], 80)
    assert dropped(net.pods["a"], unknown, own, 80)
    assert dropped(net.world, unknown, own, 80)


@BOTH
def test_host_port_from_everywhere(net: WiredNode, family: int) -> None:
    a, b = net.pods["a"], net.pods["b"]
    assert reach(net.world, b, NODE[family], 8080, listen=80, bind=OUTSIDE[family]) == OUTSIDE[family]
    assert reach(net.world, b, NODE[family], 5353, listen=53, proto="udp") == WORLD[family]
    assert reach(a, b, NODE[family], 8080, listen=80) == A[family]
    assert reach(net.node, b, NODE[family], 8080, listen=80) is not None
    # Hairpin: the pod itself, which must not see its own address as the client's.
    assert reach(b, b, NODE[family], 8080, listen=80) not in {None, B[family]}
    assert reach(b, b, NODE[family], 5353, listen=53, proto="udp") not in {None, B[family]}


def test_host_port_through_loopback(net: WiredNode) -> None:
    b = net.pods["b"]
    assert reach(net.node, b, "127.0.0.1", 8080, listen=80) == NODE4
    assert reach(net.node, b, "127.0.0.1", 5353, listen=53, proto="udp") == NODE4
    with run_in(net.node, lambda: socket.socket(socket.AF_INET6)) as client:
        client.settimeout(PATIENT)
        with pytest.raises(ConnectionRefusedError):  # at once, so that clients go on to 127.0.0.1
            client.connect(("::1", 8080))


def test_host_port_on_one_address(net: WiredNode) -> None:
    b = net.pods["b"]
    assert reach(net.world, b, NODE4, 8081, listen=81) is not None
    assert reach(net.world, b, NODE6, 8081, listen=81) is not None
    assert dropped(net.node, b, "127.0.0.1", 8081, listen=81)
    assert reach(net.node, b, "127.0.0.1", 8082, listen=82) == NODE4
    assert dropped(net.world, b, NODE4, 8082, listen=82)
    assert reach(net.world, b, NODE4, 8083, listen=83) is not None
    assert dropped(net.world, b, NODE6, 8083, listen=83)


@BOTH
def test_sctp_host_port(net: WiredNode, family: int) -> None:
    # This kernel has no SCTP sockets; its NAT knows the protocol. An INIT chunk shows what happens to it.
    kind = socket.AF_INET6 if family else socket.AF_INET
    receiver = run_in(net.pods["b"], lambda: socket.socket(kind, socket.SOCK_RAW, 132))
    sender = run_in(net.world, lambda: socket.socket(kind, socket.SOCK_RAW, 132))
    with receiver, sender:
        receiver.settimeout(PATIENT)
        sender.sendto(_init(40_000, 3868), (NODE[family], 0))
        packet = receiver.recv(2048)
    header = packet if family else packet[20:]
    assert struct.unpack_from("!HH", header) == (40_000, 3869)
    assert header[8:12] == _crc32c(header[:8] + bytes(4) + header[12:])


def test_the_nodes_loopback_is_closed_to_pods_although_route_localnet_is_on(net: WiredNode) -> None:
    packet = _udp("10.42.1.2", "127.0.0.1", 7777)
    server = run_in(net.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    frames = run_in(net.pods["a"], lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
    with server, frames:
        server.bind(("127.0.0.1", 7777))
        server.settimeout(0.3)
        where = ("eth0", 0x0800, 0, 0, bytes.fromhex(HOST_MAC.replace(":", "")))
        frames.sendto(packet, where)
        with pytest.raises(TimeoutError):
            server.recv(64)
        net.sh(net.node, "nft flush chain inet towpath prerouting")
        server.settimeout(PATIENT)
        frames.sendto(packet, where)
        assert server.recv(64) == b"ping"  # so it was the rule that dropped it
    assert [op.describe() for op in net.reconcile()] == ["nft inet towpath: chain prerouting (3 rules)"]


def test_a_new_process_finds_everything_as_it_should_be(net: WiredNode) -> None:
    # Rules are written as nft prints them, so that a restarted agent takes them for its own.
    desired = node_state(net.snapshot())
    kernel = run_in(net.node, LinuxKernel)
    assert diff(kernel.observe(desired.state.sysctls, TABLE), desired.state, desired.scope) == ()
    kernel.close()


def _udp(source: str, dst: str, port: int) -> bytes:
    body = struct.pack("!HHHH", 5000, port, 12, 0) + b"ping"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(dst)
    total = sum(struct.unpack("!10H", head))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + body


def _init(source: int, dst: int) -> bytes:
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    packet = struct.pack("!HHII", source, dst, 0, 0) + chunk
    return packet[:8] + _crc32c(packet) + packet[12:]


def _crc32c(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)
