"""Two nodes and the wire between them: pods reach each other by every way there is, and repairs repair."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace
from wired_node import Machine, reach, two_nodes

from nodes import DUAL, V4_ONLY, V6_ONLY, mac, node
from patience import PATIENT
from towpath.api.core import NodeAddress, NodeStatus
from towpath.kernel.netns import run_in
from towpath.model.network import ClusterNetwork
from towpath.model.op import Delete, DelLink

pytestmark = pytest.mark.kernel
SO_RCVBUFFORCE = 33

A, B = ("10.42.1.2", "fd00:10:42:1::2"), ("10.42.2.2", "fd00:10:42:2::2")
ON_LINK = frozenset(
    ip_address(a) for a in ("172.30.0.11", "172.30.0.12", "fd00:172:30::11", "fd00:172:30::12")
)
EACH_POD = "for dev in $(ip -br link | grep -o ^cali[0-9a-f]*); do"
HOST_GW = replace(DUAL, backend="host-gw")


@pytest.fixture
def pair() -> Iterator[tuple[Machine, Machine]]:
    made = two_nodes()
    for machine, addresses in zip(made, (A, B), strict=True):
        machine.add("pod", *addresses)
    yield made
    for machine in made:
        machine.close()


def reached(pair: tuple[Machine, Machine], families: tuple[int, ...] = (0, 1)) -> bool:
    """Whether the pods reach each other, unmasqueraded, in each of ``families``."""
    a, b = (machine.pods["pod"] for machine in pair)
    return all((reach(a, b, B[f], 80), reach(b, a, A[f], 80)) == (A[f], B[f]) for f in families)


def configure(pair: tuple[Machine, Machine], network: ClusterNetwork) -> None:
    for machine in pair:
        machine.network = network
        machine.nodes = (node(1, network.backend), node(2, network.backend))
        machine.on_link = ON_LINK
        machine.reconcile()
        assert machine.reconcile() == ()


def test_vxlan(pair: tuple[Machine, Machine]) -> None:
    assert reached(pair)
    for machine in pair:
        assert machine.reconcile() == ()


STRAY = """
table inet heard {
    chain heard {
        type filter hook prerouting priority -400;
        udp dport 9 ip daddr != 10.42.2.2 counter
        udp dport 9 ip6 daddr != fd00:10:42:2::2 counter
    }
}
"""


@pytest.mark.parametrize("network", [DUAL, HOST_GW], ids=["vxlan", "host-gw"])
def test_what_is_for_nobody_leaves_the_node_that_it_is_for_by_no_way(
    pair: tuple[Machine, Machine], network: ClusterNetwork
) -> None:
    # Free addresses of the podCIDR, which the default route leads to, and of a block in the other's podCIDR,
    # which the other would send back.
    one, two = pair
    for machine in pair:
        machine.holdings = {"n1": (ip_network("10.42.2.64/26"), ip_network("fd00:10:42:2::40/122"))}
    configure(pair, network)
    one.sh(one.netns, "ip route add default via 172.30.0.12; ip -6 route add default via fd00:172:30::12")
    two.sh(two.netns, f"nft -f - <<'END'{STRAY}END")
    free = ("10.42.1.200", "fd00:10:42:1::200", "10.42.2.70", "fd00:10:42:2::46")
    for address in free:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        with run_in(one.pods["pod"], partial(socket.socket, kind, socket.SOCK_DGRAM)) as source:
            source.sendto(b"to nobody", (address, 9))
    assert reached(pair)
    heard = two.sh(two.netns, "nft list table inet heard")
    assert heard.count("counter packets 0 ") == 2, heard
    dropped = one.sh(one.netns, "nft list chain inet towpath stray")
    assert dropped.count("counter packets 2 ") == 2, dropped


def test_every_way_and_the_change_from_each_to_the_next(pair: tuple[Machine, Machine]) -> None:
    direct = replace(DUAL, direct_routing=True)
    for network, families in (
        (direct, (0, 1)),
        (HOST_GW, (0, 1)),
        (DUAL, (0, 1)),
        (V6_ONLY, (1,)),
        (V4_ONLY, (0,)),
        (HOST_GW, (0, 1)),
    ):
        configure(pair, network)
        assert reached(pair, families), network


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_nothing_is_lost_while_peers_move(pair: tuple[Machine, Machine], family: int) -> None:
    # Between tunnel and direct routing. A change of the backend itself takes the device from under a peer
    # that has not changed yet.
    one, two = pair
    kind = socket.AF_INET6 if family else socket.AF_INET
    source, sink = (run_in(m.pods["pod"], lambda: socket.socket(kind, socket.SOCK_DGRAM)) for m in (one, two))
    done = threading.Event()
    sent = 0
    received: list[int] = []

    def send() -> None:
        nonlocal sent
        while not done.wait(0.0002):
            source.sendto(sent.to_bytes(4, "big"), (B[family], 9))
            sent += 1

    def receive() -> None:
        while not done.is_set() or received[-1:] != [sent - 1]:
            try:
                received.append(int.from_bytes(sink.recv(4), "big"))
            except TimeoutError:
                if done.is_set():
                    return

    with source, sink:
        sink.bind((B[family], 9))
        sink.settimeout(1)
        with contextlib.suppress(PermissionError):  # as much as comes before the receiver gets its turn
            sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        threads = [threading.Thread(target=target) for target in (send, receive)]
        for thread in threads:
            thread.start()
        try:
            moves = 0
            while moves < 6 or sent <= 100:  # enough of both, however seldom the sender gets its turn
                for network in (replace(DUAL, direct_routing=True), DUAL):
                    configure(pair, network)
                moves += 1
        finally:
            done.set()
            for thread in threads:
                thread.join()
    rules = [rule for m in pair for rule in m.sh(m.netns, "nft list table inet towpath").splitlines()]
    assert received == list(range(sent)), [one for one in rules if re.search(r"packets [1-9].*drop", one)]
    assert sent > 100


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_full_sized_packet_fits_and_one_byte_more_does_not(
    pair: tuple[Machine, Machine], family: int
) -> None:
    # Don't fragment, of exactly the overlay's MTU, between the nodes: the pods' links are the smaller of two.
    one, two = pair
    size = (1450, 1430)[family]
    kind, header = (socket.AF_INET6, 48) if family else (socket.AF_INET, 28)
    source, sink = (run_in(m.netns, lambda: socket.socket(kind, socket.SOCK_DGRAM)) for m in (one, two))
    with source, sink:
        sink.bind((("10.42.2.0", "fd00:10:42:2::")[family], 9))
        sink.settimeout(PATIENT)
        if family:
            source.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER, DO
        else:
            source.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, DO
        source.connect(sink.getsockname()[:2])
        source.send(bytes(size - header))
        assert len(sink.recv(2000)) == size - header
        with pytest.raises(OSError, match="too long"):
            source.send(bytes(size - header + 1))


def test_a_peers_new_mac_and_address_are_followed(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    two.sh(two.netns, "ip addr add 172.30.0.77/24 dev eth0")
    data = f'{{"VNI":1,"VtepMAC":"{mac(77)}"}}'
    told = {"public_ip": "172.30.0.77", "public_ip_overwrite": "172.30.0.77", "backend_data": data}
    own = NodeAddress(type="InternalIP", address="172.30.0.12")  # which it still sends from
    moved = replace(node(2, **told), status=NodeStatus(addresses=[own]))
    for machine in pair:
        machine.nodes = (node(1), moved)
        machine.reconcile()
        assert machine.reconcile() == ()
    assert reached(pair)
    assert "172.30.0.12" not in one.sh(one.netns, "bridge fdb show dev flannel.1")
    assert mac(77) in two.sh(two.netns, "ip link show flannel.1")


def test_stale_entries_found_at_start_go_and_foreign_ones_stay(pair: tuple[Machine, Machine]) -> None:
    one, _ = pair
    one.sh(
        one.netns,
        f"""
        ip neigh add 10.42.7.0 lladdr {mac(7)} dev flannel.1 nud permanent
        bridge fdb append {mac(7)} dev flannel.1 dst 172.30.0.17
        ip route add 10.42.7.0/24 via 10.42.7.0 dev flannel.1 onlink
        ip -6 route add fd00:10:42:7::/64 via fd00:10:42:7:: dev flannel-v6.1 onlink
        ip route add 10.42.8.0/24 via 172.30.0.12 dev eth0 proto static
        ip addr add 10.42.7.0/32 dev flannel.1
        ip route add 10.99.0.0/24 via 172.30.0.12
        ip neigh add 172.30.0.200 lladdr {mac(7)} dev eth0 nud permanent
        """,
    )
    ops = one.reconcile()
    assert all(isinstance(op, Delete) for op in ops)
    assert len(ops) == 6
    assert one.reconcile() == ()
    left = one.sh(one.netns, "ip route; ip -6 route; ip neigh; ip addr; bridge fdb")
    assert "10.42.7." not in left and "fd00:10:42:7:" not in left and "10.42.8." not in left
    assert "10.99.0.0/24" in left and "172.30.0.200" in left
    assert reached(pair)


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set flannel.1 down",
        "ip link del flannel.1; ip link del flannel-v6.1",
        "ip link set flannel-v6.1 mtu 1280 address 0e:00:00:00:00:99",
        "ip route flush table main; ip -6 route flush table main; ip link set eth0 down",
        "ip neigh flush dev flannel.1 nud permanent; bridge fdb del 0e:00:00:00:06:02 dev flannel-v6.1",
        "nft flush ruleset",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        f"{EACH_POD} ip link set $dev down; done",
        f"{EACH_POD} ip link set $dev address 0e:00:00:00:00:98; done",
    ],
)
def test_what_somebody_breaks_is_mended(pair: tuple[Machine, Machine], damage: str) -> None:
    one, _ = pair
    one.sh(one.netns, damage)
    if "eth0 down" in damage:  # not ours to mend
        one.sh(one.netns, "ip addr flush dev eth0")
        one.address_underlay()
    assert one.reconcile() != ()
    assert one.reconcile() == ()
    assert reached(pair)


def test_flannels_own_device_is_adopted_alive(pair: tuple[Machine, Machine]) -> None:
    one, _ = pair
    one.sh(
        one.netns,
        f"""
        ip link del flannel.1
        ip link add flannel.1 address {mac(55)} type vxlan \\
          id 1 local 172.30.0.11 dev eth0 dstport 8472 nolearning
        ip addr add 10.42.1.0/32 dev flannel.1; ip link set flannel.1 up mtu 1450
        """,
    )
    index = one.sh(one.netns, "ip -o link show flannel.1 | cut -d: -f1")
    # Its MAC is what the annotation says, or peers would lose it.
    data = f'{{"VNI":1,"VtepMAC":"{mac(55)}"}}'
    for machine in pair:
        machine.nodes = (node(1, backend_data=data), node(2))
        assert not [op for op in machine.reconcile() if isinstance(op, DelLink)]
    assert one.sh(one.netns, "ip -o link show flannel.1 | cut -d: -f1") == index
    assert reached(pair)


def test_an_incompatible_device_is_replaced(pair: tuple[Machine, Machine]) -> None:
    one, _ = pair
    one.sh(
        one.netns,
        "ip link del flannel.1;"
        f"ip link add flannel.1 address {mac(1)} type vxlan id 1 local 172.30.0.11 dev eth0"
        " dstport 4789 nolearning",
    )
    assert [op for op in one.reconcile() if isinstance(op, DelLink)] == [DelLink("flannel.1")]
    assert one.reconcile() == ()
    assert reached(pair)


def test_what_is_on_the_wire_is_flannels_vxlan(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    wire = run_in(two.netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)))
    with wire:
        wire.settimeout(PATIENT)
        assert reach(one.pods["pod"], two.pods["pod"], B[0], 80, proto="udp") == A[0]
        while True:
            frame, (dev, *_) = wire.recvfrom(2048)
            if dev == "eth0" and frame[23] == 17 and int.from_bytes(frame[36:38], "big") == 8472:
                break
    assert frame[42:50] == bytes.fromhex("0800000000000100")  # VNI 1
    assert frame[50:56] == bytes.fromhex(mac(2).replace(":", ""))
