"""What policy is asked of, and when: translated flows, answers and errors, fragments, the host, new pods."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from frames import number_of, packet
from policed_node import A, B, PolicedNode, network_policy, pod
from wired_node import DROPPED, NODE4, NODE6, OUTSIDE4, OUTSIDE6, dropped, reach

from patience import PATIENT
from towpath.desired.names import HOST_MAC, host_ifname
from towpath.kernel.netns import run_in
from towpath.model.attachment import PortMapping
from towpath.policy.evaluate import Flow
from towpath.policy.ir import ICMP, ICMPV6, TCP, UDP
from towpath.policy.world import assemble

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
NODE, OUTSIDE = (NODE4, NODE6), (OUTSIDE4, OUTSIDE6)
WORLD = ("172.30.0.12", "fd00:172:30::12")
SERVICE = ("10.96.0.9", "fd00:10:96::9")
LENGTH = (32, 128)
NOTHING_IN = network_policy("in", "b", policyTypes=["Ingress"])
NOTHING = network_policy("none", "b", policyTypes=["Ingress", "Egress"])


@pytest.fixture(scope="module")
def shared() -> Iterator[PolicedNode]:
    made = PolicedNode(ports=(PortMapping(host_port=8080, container_port=80),))
    yield made
    made.close()


@pytest.fixture
def node(shared: PolicedNode) -> Iterator[PolicedNode]:
    """Without policies, before and after."""
    yield shared
    shared.enforce()


def block(address: str, port: int | None = None, side: str = "from") -> dict[str, Any]:
    """A rule of an address alone."""
    peer = {"ipBlock": {"cidr": f"{address}/{LENGTH[':' in address]}"}}
    return {side: [peer]} | ({"ports": [{"port": port}]} if port else {})


def into_b(*rules: dict[str, Any]) -> dict[str, Any]:
    return network_policy("in", "b", policyTypes=["Ingress"], ingress=[*rules])


def out_of_a(*rules: dict[str, Any]) -> dict[str, Any]:
    return network_policy("out", "a", policyTypes=["Egress"], egress=[*rules])


@contextlib.contextmanager
def translated(node: PolicedNode, family: int, address: str, port: int) -> Iterator[None]:
    """What a service proxy does for ``address``: to b's port 80, and masqueraded on the way out."""
    ip, target = (("ip", B[0]), ("ip6", f"[{B[1]}]"))[family]
    node.sh(
        node.netns,
        "nft 'add table inet svc;"
        " add chain inet svc to { type nat hook prerouting priority -100; };"
        " add chain inet svc out { type nat hook postrouting priority 100; };"
        f" add rule inet svc to {ip} daddr {address} tcp dport {port} dnat {ip} to {target}:80;"
        " add rule inet svc out ct status dnat masquerade'",
    )
    try:
        yield
    finally:
        node.sh(node.netns, "nft delete table inet svc")


# Translated flows.


@BOTH
def test_a_pod_reaches_itself_by_its_service_whatever_its_policies(node: PolicedNode, family: int) -> None:
    node.enforce(NOTHING)
    a, b = node.pods["a"], node.pods["b"]
    with translated(node, family, SERVICE[family], 80):
        assert reach(b, b, SERVICE[family], 80) is not None
        assert dropped(a, b, SERVICE[family], 80)
    assert reach(b, b, NODE[family], 8080, listen=80) is not None


@BOTH
def test_a_host_ports_client_is_judged_by_its_own_address_and_the_pods_port(
    node: PolicedNode, family: int
) -> None:
    world, b = node.world, node.pods["b"]
    node.enforce(into_b(block(OUTSIDE[family], 80)))
    assert reach(world, b, NODE[family], 8080, listen=80, bind=OUTSIDE[family]) == OUTSIDE[family]
    assert dropped(world, b, NODE[family], 8080, listen=80, bind=WORLD[family])
    node.enforce(into_b(block(OUTSIDE[family], 8080)))
    assert dropped(world, b, NODE[family], 8080, listen=80, bind=OUTSIDE[family])


@BOTH
def test_a_node_ports_client_too_before_it_is_masqueraded(node: PolicedNode, family: int) -> None:
    world, b = node.world, node.pods["b"]
    node.enforce(into_b(block(OUTSIDE[family], 80)))
    with translated(node, family, NODE[family], 30080):
        seen = reach(world, b, NODE[family], 30080, listen=80, bind=OUTSIDE[family])
        assert seen not in {None, OUTSIDE[family]}
        assert dropped(world, b, NODE[family], 30080, listen=80, bind=WORLD[family])


@BOTH
def test_what_a_pod_may_send_is_judged_by_where_it_goes_in_the_end(node: PolicedNode, family: int) -> None:
    a, b = node.pods["a"], node.pods["b"]
    with translated(node, family, NODE[family], 30080):
        node.enforce(out_of_a(block(B[family], 80, "to")))
        assert reach(a, b, NODE[family], 30080, listen=80) is not None
        assert reach(a, b, NODE[family], 8080, listen=80) is not None
        node.enforce(out_of_a(block(NODE[family], side="to")))
        assert dropped(a, b, NODE[family], 30080, listen=80)
        assert dropped(a, b, NODE[family], 8080, listen=80)


# Answers, errors, and what is neither.


@BOTH
def test_established_connections_survive_a_new_policy(node: PolicedNode, family: int) -> None:
    a, b = node.pods["a"], node.pods["b"]
    kind = socket.AF_INET6 if family else socket.AF_INET
    server, client = (run_in(netns, lambda: socket.socket(kind)) for netns in (b, a))
    with server, client:
        server.bind((B[family], 4000))
        server.listen()
        client.settimeout(PATIENT)
        client.connect((B[family], 4000))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENT)
            node.enforce(NOTHING, out_of_a())
            client.send(b"still")
            assert connection.recv(16) == b"still"
            connection.send(b"there")
            assert client.recv(16) == b"there"
            assert dropped(a, b, B[family], 4001)


@BOTH
def test_errors_of_allowed_flows_come_back(node: PolicedNode, family: int) -> None:
    """b may send nothing of its own, a may receive nothing; nobody listens."""
    node.enforce(
        network_policy("out", "b", policyTypes=["Egress"]), network_policy("in", "a", policyTypes=["Ingress"])
    )
    for target in (B[family], OUTSIDE[family]):
        assert _refused(node.pods["a"], target, PATIENT)
    node.enforce(NOTHING_IN)
    assert not _refused(node.pods["a"], B[family], DROPPED)


def _refused(source: int, target: str, patience: float) -> bool:
    kind = socket.AF_INET6 if ":" in target else socket.AF_INET
    with run_in(source, lambda: socket.socket(kind, socket.SOCK_DGRAM)) as client:
        client.settimeout(patience)
        client.connect((target, 9))
        client.send(b"anybody?")
        try:
            client.recv(16)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    raise AssertionError("somebody listens")


class Line:
    """The end of a pod's link, to send and receive whole packets."""

    def __init__(self, netns: int) -> None:
        self.socket = run_in(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
        self.socket.bind(("eth0", 3))
        self.socket.settimeout(DROPPED)

    def send(self, data: bytes) -> None:
        kind = 0x0800 if data[0] >> 4 == 4 else 0x86DD
        self.socket.sendto(data, ("eth0", kind, 0, 0, bytes.fromhex(HOST_MAC.replace(":", ""))))

    def numbers(self) -> set[int]:
        """Of the packets that come in, until nothing does for a while."""
        found: set[int] = set()
        with contextlib.suppress(TimeoutError):
            while True:
                data, where = self.socket.recvfrom(4096)
                if where[2] != socket.PACKET_OUTGOING and (number := number_of(data)) is not None:
                    found.add(number)
        return found

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def _flow(family: int, protocol: int, **fields: int) -> Flow:
    return Flow(source=ip_address(A[family]), destination=ip_address(B[family]), protocol=protocol, **fields)


@BOTH
def test_invalid_packets_of_pods_are_dropped_without_any_policy(node: PolicedNode, family: int) -> None:
    good = packet(_flow(family, TCP, source_port=5001, destination_port=80), 1)
    damaged = packet(_flow(family, TCP, source_port=5002, destination_port=80), 2)
    place = (20, 40)[family] + 16
    damaged = damaged[:place] + bytes((damaged[place] ^ 0xFF,)) + damaged[place + 1 :]
    with Line(node.pods["a"]) as line, Line(node.pods["b"]) as end:
        line.send(damaged)
        line.send(good)
        assert end.numbers() == {1}


@BOTH
def test_an_error_of_no_flow_is_dropped(node: PolicedNode, family: int) -> None:
    """Whoever is allowed everything may not send errors about what was never sent."""
    echo, unreachable = ((8, 0), (3, 3)) if family == 0 else ((128, 0), (1, 4))
    protocol = (ICMP, ICMPV6)[family]
    back = Flow(source=ip_address(B[family]), destination=ip_address(A[family]), protocol=UDP)
    question = packet(_flow(family, protocol, icmp_type=echo[0], icmp_code=echo[1]), 4)
    kind, code = unreachable
    error = packet(
        _flow(family, protocol, icmp_type=kind, icmp_code=code), 5, packet(back, 6)[: (28, 48)[family]]
    )
    with Line(node.pods["a"]) as line, Line(node.pods["b"]) as end:
        line.send(error)
        line.send(question)
        assert end.numbers() == {4}


@BOTH
def test_fragments_share_the_fate_of_the_first(node: PolicedNode, family: int) -> None:
    node.enforce(into_b({"ports": [{"port": 80, "protocol": "UDP"}]}))
    kind = socket.AF_INET6 if family else socket.AF_INET
    payload = b"tp#\0\0\0\x07" * 500
    with (
        run_in(node.pods["a"], lambda: socket.socket(kind, socket.SOCK_DGRAM)) as client,
        run_in(node.pods["b"], lambda: socket.socket(kind, socket.SOCK_DGRAM)) as server,
        Line(node.pods["b"]) as end,
    ):
        server.bind((B[family], 80))
        server.settimeout(PATIENT)
        client.sendto(payload, (B[family], 80))
        assert server.recv(8192) == payload
        assert end.numbers() == {7}  # and it did come in parts
        client.sendto(payload, (B[family], 81))
        assert end.numbers() == set()


# The host.


@BOTH
def test_what_a_pod_sends_to_its_host_is_judged(node: PolicedNode, family: int) -> None:
    a = node.pods["a"]
    node.enforce(out_of_a())
    assert dropped(a, node.netns, NODE[family], 10250)
    node.enforce(out_of_a(block(NODE[family], 10250, "to")))
    assert reach(a, node.netns, NODE[family], 10250) == A[family]
    assert dropped(a, node.netns, NODE[family], 10251)


@BOTH
def test_what_the_host_sends_to_its_pods_is_not(node: PolicedNode, family: int) -> None:
    """Kubelet's probes, and the node's host-networked pods; by origin, and not by the address."""
    node.enforce(NOTHING)
    b = node.pods["b"]
    assert reach(node.netns, b, B[family], 80) is not None
    assert reach(node.netns, b, B[family], 80, proto="udp") is not None
    nodad = "nodad" if family else ""
    node.sh(node.world, f"ip addr add {NODE[family]}/{LENGTH[family]} dev lo {nodad}")
    try:
        assert dropped(node.world, b, B[family], 80, bind=NODE[family])
    finally:
        node.sh(node.world, f"ip addr del {NODE[family]}/{LENGTH[family]} dev lo")


@BOTH
def test_another_nodes_host_networked_pod_is_that_node(node: PolicedNode, family: int) -> None:
    """No selector of pods selects it; its address does."""
    everybody = into_b({"from": [{"podSelector": {}}, {"namespaceSelector": {}}]})
    guest = pod("guest", (WORLD[0], WORLD[1]))
    guest["spec"] |= {"hostNetwork": True, "nodeName": "n2"}
    world, b = node.world, node.pods["b"]
    node.enforce(guest, everybody)
    assert reach(node.pods["a"], b, B[family], 80) is not None
    assert dropped(world, b, B[family], 80, bind=WORLD[family])
    node.enforce(guest, into_b(block(WORLD[family])))
    assert reach(world, b, B[family], 80, bind=WORLD[family]) == WORLD[family]


# Pods nobody knows yet.


def test_a_pod_sends_and_receives_nothing_until_its_policy_is_in_force(node: PolicedNode) -> None:
    addresses = ("10.42.1.4", "fd00:10:42:1::4")
    node.add("late", *addresses)  # wired and bound; policy has not heard of it
    late, a = node.pods["late"], node.pods["a"]
    local = {host_ifname("default", name): f"Pod/default/{name}" for name in ("a", "b", "late")}

    def shut() -> bool:
        return all(
            dropped(late, a, A[n], 80)
            and dropped(a, late, addresses[n], 80)
            and dropped(late, node.netns, NODE[n], 80)
            for n in (0, 1)
        )

    assert shut()
    node.engine.set_local(local)  # its policies are not known while it is not
    node.program = node.engine.program()
    node.reconcile()
    assert shut()
    assert reach(node.netns, late, addresses[0], 80) is not None
    node.engine.load(assemble([pod("late", addresses)]).world)
    node.program = node.engine.program()
    node.reconcile()
    for n in (0, 1):
        assert reach(late, a, A[n], 80) == addresses[n]
        assert reach(a, late, addresses[n], 80) == A[n]
