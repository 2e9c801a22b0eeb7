"""Real packets through the service proxy's table, beside Towpath's own on the same node."""

import socket
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from wired_node import (
    DROPPED,
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    REMOTE_POD4,
    REMOTE_POD6,
    Proto,
    WiredNode,
    reach,
)

from towpath.kernel.netns import run_in
from towpath.lab.controllers.objects_core import EndpointSlice, Service
from towpath.lab.serviceproxy_rules import TABLE, fragment, proxy_table
from towpath.reconcile.tables import diff_table

pytestmark = pytest.mark.kernel

A, B = ("10.42.1.2", "fd00:10:42:1::2"), ("10.42.1.3", "fd00:10:42:1::3")
NODE, OUTSIDE, REMOTE = (NODE4, NODE6), (OUTSIDE4, OUTSIDE6), (REMOTE_POD4, REMOTE_POD6)
NETS = (ip_network("10.42.0.0/16"), ip_network("fd00:10:42::/56"))
# What a node calls itself when it masquerades: IPv6 prefers the address most like the destination.
OWN = ({NODE4}, {NODE6, "fd00:10:42:1::"})
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORTS: list[dict[str, Any]] = [
    {"name": "tcp", "port": 80, "protocol": "TCP", "nodePort": 30080},
    {"name": "udp", "port": 80, "protocol": "UDP", "nodePort": 30080},
    {"name": "sctp", "port": 80, "protocol": "SCTP", "nodePort": 30080},
]


def service(name: str, number: int, **spec: Any) -> Service:
    body = {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "clusterIPs": [f"10.43.0.{number}", f"fd00:10:43::{number}"],
            "ports": [{**p, "nodePort": p["nodePort"] + number} for p in PORTS],
            **spec,
        },
    }
    return msgspec.convert(body, Service)


def slices(*pods: tuple[tuple[str, str], str], port: int = 8080, **conditions: bool) -> list[EndpointSlice]:
    """Both families' slices; ``pods`` are (addresses, node)."""
    ports = [{"name": n, "port": port, "protocol": n.upper()} for n in ("tcp", "udp", "sctp")]
    return [
        msgspec.convert(
            {
                "addressType": f"IPv{4 if family == 0 else 6}",
                "ports": ports,
                "endpoints": [
                    {"addresses": [a[family]], "nodeName": n, "conditions": conditions} for a, n in pods
                ],
            },
            EndpointSlice,
        )
        for family in (0, 1)
    ]


def vip(number: int, family: int) -> str:
    return (f"10.43.0.{number}", f"fd00:10:43::{number}")[family]


SERVICES = {
    10: (service("one", 10), slices((B, "n1"))),
    11: (service("remote", 11), slices((REMOTE, "n2"))),
    12: (service("none", 12), slices()),
    13: (service("local", 13, externalTrafficPolicy="Local"), slices((B, "n1"), (REMOTE, "n2"))),
    14: (service("away", 14, externalTrafficPolicy="Local"), slices((REMOTE, "n2"))),
    15: (service("sticky", 15, sessionAffinity="ClientIP"), slices((A, "n1"), (B, "n1"))),
    16: (service("own", 16), slices((A, "n1"))),
    17: (service("inside", 17, internalTrafficPolicy="Local"), slices((REMOTE, "n2"))),
    18: (service("leaving", 18), slices((B, "n1"), ready=False, serving=True, terminating=True)),
    19: (service("extra", 19, externalIPs=["203.0.113.9", "2001:db8:9::9"]), slices((B, "n1"))),
    20: (service("both", 20), slices((A, "n1"), (B, "n1"))),
}


@pytest.fixture(scope="module")
def net() -> Iterator[WiredNode]:
    made = WiredNode()
    made.add("a", *A)
    made.add("b", *B)
    parts = {s.metadata.name: fragment(s, found, "n1", NETS) for s, found in SERVICES.values()}
    update = diff_table(None, proxy_table(parts, NETS))
    assert update is not None
    made.kernel.apply([update])
    made.sh(
        made.world,
        "ip route add 10.43.0.0/16 via 172.30.0.11; ip route add fd00:10:43::/112 via fd00:172:30::11",
    )
    made.sh(
        made.world, "ip route add 203.0.113.9 via 172.30.0.11; ip route add 2001:db8:9::9 via fd00:172:30::11"
    )
    yield made
    made.close()


@BOTH
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_pods_keep_their_address_on_the_way_to_a_service(net: WiredNode, family: int, proto: Proto) -> None:
    pods = net.pods
    assert reach(pods["a"], pods["b"], vip(10, family), 80, listen=8080, proto=proto) == A[family]
    if proto == "tcp":
        assert reach(pods["a"], net.world, vip(11, family), 80, listen=8080) == A[family]


@BOTH
def test_a_pod_reaches_itself_through_its_service(net: WiredNode, family: int) -> None:
    pod = net.pods["a"]
    assert reach(pod, pod, vip(16, family), 80, listen=8080) in OWN[family]
    assert reach(pod, pod, NODE[family], 30096, listen=8080) in OWN[family]


@BOTH
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_the_node_and_the_outside_are_masqueraded(net: WiredNode, family: int, proto: Proto) -> None:
    pods = net.pods
    assert reach(net.node, pods["b"], vip(10, family), 80, listen=8080, proto=proto) in OWN[family]
    assert reach(net.world, pods["b"], vip(10, family), 80, listen=8080, proto=proto) in OWN[family]
    assert reach(net.world, pods["b"], NODE[family], 30090, listen=8080, proto=proto) in OWN[family]
    assert reach(net.node, pods["b"], NODE[family], 30090, listen=8080, proto=proto) in OWN[family]
    assert (
        reach(net.world, pods["b"], ("203.0.113.9", "2001:db8:9::9")[family], 80, listen=8080) in OWN[family]
    )


@BOTH
def test_a_node_port_leads_to_another_node_and_back(net: WiredNode, family: int) -> None:
    seen = reach(net.world, net.world, NODE[family], 30091, listen=8080, bind=OUTSIDE[family])
    assert seen in OWN[family]
    assert reach(net.pods["a"], net.world, NODE[family], 30091, listen=8080) in OWN[family]


@BOTH
def test_local_policy_keeps_the_clients_address_and_never_leaves_the_node(
    net: WiredNode, family: int
) -> None:
    pods = net.pods
    for _ in range(6):
        seen = reach(net.world, pods["b"], NODE[family], 30093, listen=8080, bind=OUTSIDE[family])
        assert seen == OUTSIDE[family]
    assert (
        reach(net.world, net.world, NODE[family], 30094, listen=8080, bind=OUTSIDE[family], patience=DROPPED)
        is None
    )
    assert reach(pods["a"], net.world, NODE[family], 30094, listen=8080) == A[family]
    assert reach(net.node, net.world, NODE[family], 30094, listen=8080) in OWN[family]


@BOTH
def test_services_without_endpoints_refuse_at_once(net: WiredNode, family: int) -> None:
    for source, target, port in (
        (net.pods["a"], vip(12, family), 80),
        (net.node, vip(12, family), 80),
        (net.world, NODE[family], 30092),
        (net.pods["a"], vip(10, family), 81),
    ):
        assert net_error(source, target, port) == "ConnectionRefusedError"
    assert net_error(net.pods["a"], vip(17, family), 80, DROPPED) == "TimeoutError"


@BOTH
def test_pods_on_their_way_out_serve_when_no_other_does(net: WiredNode, family: int) -> None:
    assert reach(net.pods["a"], net.pods["b"], vip(18, family), 80, listen=8080) == A[family]


@BOTH
def test_choice_by_chance_and_by_client(net: WiredNode, family: int) -> None:
    pods = net.pods
    spread = {reach(net.world, pods["b"], vip(20, family), 80, listen=8080) is None for _ in range(16)}
    assert spread == {True, False}
    stuck = {reach(net.world, pods["b"], vip(15, family), 80, listen=8080) is None for _ in range(8)}
    assert len(stuck) == 1


def test_the_table_reads_back_as_it_was_written(net: WiredNode) -> None:
    parts = {s.metadata.name: fragment(s, found, "n1", NETS) for s, found in SERVICES.values()}
    assert diff_table(net.kernel.observe(table=TABLE).nft, proxy_table(parts, NETS)) is None


def net_error(netns: int, target: str, port: int, patience: float = 60) -> str:

    kind = socket.AF_INET6 if ":" in target else socket.AF_INET
    with run_in(netns, lambda: socket.socket(kind, socket.SOCK_STREAM)) as sock:
        sock.settimeout(patience)
        try:
            sock.connect((target, port))
        except OSError as error:
            return type(error).__name__
    return ""
