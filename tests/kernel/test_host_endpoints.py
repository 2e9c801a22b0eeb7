"""Real packets to, from and through a node with host endpoints, in both families."""

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from wired_node import (
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    Machine,
    WiredNode,
    dropped,
    reach,
    two_nodes,
)

from patience import PATIENT
from policy_worlds import host as host_endpoint
from policy_worlds import nets, pod, policy
from towpath.agent.inquiries import Inquiries
from towpath.agent.policy_records import Where, record
from towpath.api.inquiry import Asked, Enforcement
from towpath.desired.node import node_state
from towpath.desired.snapshot import Snapshot
from towpath.kernel.netns import run_in
from towpath.kernel.nflog import LogSocket
from towpath.model.attachment import PortMapping
from towpath.model.failsafe import Failsafe, Failsafes
from towpath.model.policy import HOST_IN, Program, Sampling
from towpath.policy.engine import Engine
from towpath.policy.ir import KIND, TCP, UDP, Endpoint, Peer, Policy, Ports, Rule, World
from towpath.policy.selector import equal

pytestmark = pytest.mark.kernel

A = ("10.42.1.2", "fd00:10:42:1::2")
B = ("10.42.2.2", "fd00:10:42:2::2")
NODE, OUTSIDE, WORLD = (NODE4, NODE6), (OUTSIDE4, OUTSIDE6), ("172.30.0.12", "fd00:172:30::12")
BOTH = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
NEIGHBOURS = Peer(nets=nets("172.30.0.0/24", "fd00:172:30::/64"))
HOSTS = equal(KIND, "hostendpoint")
ALLOW, DENY = Rule(action="allow"), Rule(action="deny")


class Node(WiredNode):
    """With host endpoints by interface, and policies."""

    def __init__(self) -> None:
        self.failsafes = Failsafes()
        super().__init__()

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), failsafes=self.failsafes)

    def judge(self, hosts: dict[str, Endpoint], *policies: Policy) -> None:
        """These and no others."""
        self.program = program(self, hosts, *policies)
        self.reconcile()
        assert self.reconcile() == (), "what was written is what is read"


def program(machine: Machine, hosts: dict[str, Endpoint], *policies: Policy) -> Program:
    return engine_of(machine, hosts, *policies).program()


def engine_of(machine: Machine, hosts: dict[str, Endpoint], *policies: Policy) -> Engine:
    engine = Engine()
    pods = {att.host_ifname: pod(f"default/{name}", *A) for name, att in attachments(machine).items()}
    engine.load(World(endpoints=(*hosts.values(), *pods.values()), policies=policies))
    engine.set_local({dev: one.name for dev, one in pods.items()})
    engine.set_hosts({dev: one.name for dev, one in hosts.items()})
    return engine


def attachments(machine: Machine) -> dict[str, Any]:
    return {att.pod.name: att for att in machine.snapshot().attachments if att.pod is not None}


def closed(name: str = "h") -> Endpoint:
    return replace(host_endpoint(name), addresses=tuple(map(ip_address, NODE)))


def to(*ports: int, protocol: int = TCP, **fields: Any) -> Rule:
    ranges = tuple((port, port) for port in ports)
    return Rule(action="allow", protocol=protocol, destination_ports=Ports(ranges=ranges), **fields)


def shut(port: int) -> Rule:
    return replace(to(port), action="deny", path="spec.ingress[0]")


def about(name: str, **fields: Any) -> Policy:
    return policy(name, selector=HOSTS, **fields)


@pytest.fixture(scope="module")
def net() -> Iterator[Node]:
    made = Node()
    made.add(
        "a",
        *A,
        ports=(
            PortMapping(host_port=8080, container_port=80),
            PortMapping(host_port=8081, container_port=81),
        ),
    )
    yield made
    made.close()


@BOTH
def test_without_policies_only_failsafes_pods_and_what_passes_are_left(net: Node, family: int) -> None:
    net.judge({"eth0": closed()})
    # Which must not depend on neighbours that are known already.
    net.sh(net.node, "ip neigh flush dev eth0; ip -6 neigh flush dev eth0")
    net.sh(net.world, "ip neigh flush dev eth0; ip -6 neigh flush dev eth0")
    for port in (22, 6443, 10250, 9345, 2379):
        assert reach(net.world, net.node, NODE[family], port), port
    for port in (6443, 10250, 9345):
        assert reach(net.node, net.world, WORLD[family], port), port
    assert reach(net.node, net.world, WORLD[family], 53, proto="udp")
    assert dropped(net.world, net.node, NODE[family], 80)
    assert dropped(net.node, net.world, WORLD[family], 80)
    assert dropped(net.node, net.world, WORLD[family], 22)
    assert reach(net.node, net.pods["a"], A[family], 80)
    assert reach(net.pods["a"], net.node, NODE[family], 80)
    assert reach(net.world, net.pods["a"], A[family], 80)
    assert reach(net.pods["a"], net.world, OUTSIDE[family], 80)
    assert reach(net.node, net.node, NODE[family], 80)


@BOTH
def test_a_profile_that_allows_leaves_all_of_it(net: Node, family: int) -> None:
    net.judge({"eth0": replace(closed(), unmatched="allow")})
    assert reach(net.world, net.node, NODE[family], 80)
    assert reach(net.node, net.world, WORLD[family], 80)


@BOTH
def test_normal_policies_are_about_the_hosts_own_connections(net: Node, family: int) -> None:
    net.judge(
        {"eth0": closed()},
        about("in", ingress=(to(80, source=NEIGHBOURS),)),
        about("out", egress=(to(81, destination=NEIGHBOURS),)),
    )
    assert reach(net.world, net.node, NODE[family], 80)
    assert dropped(net.world, net.node, NODE[family], 80, bind=OUTSIDE[family])
    assert dropped(net.world, net.node, NODE[family], 81)
    assert reach(net.node, net.world, WORLD[family], 81)
    assert dropped(net.node, net.world, OUTSIDE[family], 81)
    assert dropped(net.node, net.world, WORLD[family], 80)
    assert reach(net.world, net.pods["a"], A[family], 82)
    assert reach(net.world, net.node, NODE[family], 22, bind=OUTSIDE[family])


@BOTH
def test_a_deny_comes_before_an_allow_and_never_before_a_failsafe(net: Node, family: int) -> None:
    net.judge({"eth0": closed()}, about("a", order=1, ingress=(DENY,)), about("b", order=2, ingress=(ALLOW,)))
    assert dropped(net.world, net.node, NODE[family], 80)
    assert reach(net.world, net.node, NODE[family], 22)


@BOTH
def test_forwarded_traffic_is_judged_by_policies_that_say_so(net: Node, family: int) -> None:
    net.judge(
        {"eth0": closed()},
        about("in", apply_on_forward=True, ingress=(to(80, source=NEIGHBOURS),)),
        about("out", apply_on_forward=True, egress=(to(81),)),
        policy("pods", selector=equal(KIND, "pod"), ingress=(to(80, 82),)),
    )
    assert reach(net.world, net.pods["a"], A[family], 80)
    assert dropped(net.world, net.pods["a"], A[family], 80, bind=OUTSIDE[family])
    assert dropped(net.world, net.pods["a"], A[family], 82)  # the pod's policy alone would let it in
    assert dropped(net.world, net.pods["a"], A[family], 22)  # failsafes are the host's
    assert reach(net.pods["a"], net.world, OUTSIDE[family], 81)
    assert dropped(net.pods["a"], net.world, OUTSIDE[family], 80)
    # They are normal policies as well.
    assert reach(net.world, net.node, NODE[family], 80)
    assert dropped(net.world, net.node, NODE[family], 82)


@BOTH
def test_forwarded_traffic_is_judged_by_where_it_goes(net: Node, family: int) -> None:
    there = Peer(nets=nets(f"{A[0]}/32", f"{A[1]}/128"))
    net.judge({"eth0": closed()}, about("in", apply_on_forward=True, ingress=(to(80, destination=there),)))
    assert reach(net.world, net.pods["a"], A[family], 80)
    assert dropped(net.world, net.node, NODE[family], 80)
    assert dropped(net.world, net.pods["a"], A[family], 81)


@BOTH
def test_pods_policies_still_count(net: Node, family: int) -> None:
    net.judge(
        {"eth0": closed()},
        about("in", apply_on_forward=True, ingress=(ALLOW,)),
        policy("pods", selector=equal(KIND, "pod"), ingress=(to(80),)),
    )
    assert reach(net.world, net.pods["a"], A[family], 80)
    assert dropped(net.world, net.pods["a"], A[family], 81)
    assert reach(net.node, net.pods["a"], A[family], 81)


@BOTH
def test_all_interfaces_are_the_pods_as_well_for_what_is_forwarded(net: Node, family: int) -> None:
    net.judge({"*": closed()}, about("out", apply_on_forward=True, ingress=(to(80),), egress=(to(80),)))
    assert reach(net.pods["a"], net.world, OUTSIDE[family], 80)
    assert dropped(net.pods["a"], net.world, OUTSIDE[family], 81)
    assert reach(net.pods["a"], net.node, NODE[family], 81)
    assert reach(net.node, net.pods["a"], A[family], 81)
    assert reach(net.node, net.node, NODE[family], 81)
    assert dropped(net.world, net.node, NODE[family], 81)


@BOTH
def test_before_dnat_the_hosts_ports_are_seen(net: Node, family: int) -> None:
    ports = about("ports", order=1, apply_on_forward=True, pre_dnat=True, ingress=(to(8080), DENY))
    net.judge({"eth0": replace(closed(), unmatched="allow")}, ports)
    assert reach(net.world, net.pods["a"], NODE[family], 8080, listen=80)
    assert dropped(net.world, net.pods["a"], NODE[family], 8081, listen=81)
    assert dropped(net.world, net.pods["a"], A[family], 80)
    assert reach(net.world, net.node, NODE[family], 22)
    # What pods send does not come in by the endpoint's interface.
    assert reach(net.pods["a"], net.world, OUTSIDE[family], 81)


@BOTH
def test_what_is_allowed_before_dnat_is_asked_nothing_else_on_its_way_in(net: Node, family: int) -> None:
    shut = (
        about("in", apply_on_forward=True, ingress=()),
        policy("pods", selector=equal(KIND, "pod"), ingress=(to(80),)),
    )
    net.judge({"eth0": closed()}, *shut)
    assert dropped(net.world, net.pods["a"], NODE[family], 8080, listen=80)
    early = about("early", apply_on_forward=True, pre_dnat=True, ingress=(to(8080, 8081, 90),))
    net.judge({"eth0": closed()}, early, *shut)
    assert reach(net.world, net.pods["a"], NODE[family], 8080, listen=80)
    assert dropped(net.world, net.pods["a"], NODE[family], 8081, listen=81)  # by the pod's policy
    assert reach(net.world, net.node, NODE[family], 90)
    assert dropped(net.world, net.node, NODE[family], 91)


@BOTH
def test_the_hosts_own_connections_are_judged_behind_dnat(net: Node, family: int) -> None:
    net.judge({"eth0": closed()}, about("out", egress=(to(81),)))
    service = ("10.96.0.9", "fd00:10:96::9")[family]
    ip, target = (("ip", WORLD[0]), ("ip6", f"[{WORLD[1]}]"))[family]
    rules = "".join(
        f" add rule inet svc c {ip} daddr {service} tcp dport {port} dnat {ip} to {target}:{real};"
        for port, real in ((90, 81), (91, 82))
    )
    net.sh(
        net.node,
        f"nft 'add table inet svc; add chain inet svc c {{ type nat hook output priority -100; }};{rules}'",
    )
    try:
        assert reach(net.node, net.world, service, 90, listen=81)
        assert dropped(net.node, net.world, service, 91, listen=82)
    finally:
        net.sh(net.node, "nft delete table inet svc")


def tracked(net: Node, port: int) -> bool:
    return f"dport={port}" in net.sh(net.node, "cat /proc/net/nf_conntrack")


@BOTH
def test_untracked_connections_need_both_directions(net: Node, family: int) -> None:
    answer = Rule(action="allow", protocol=TCP, source_ports=Ports(ranges=((7080, 7080),)))
    half = about("u", apply_on_forward=True, do_not_track=True, ingress=(to(7080),))
    net.judge({"eth0": closed()}, half)
    assert dropped(net.world, net.node, NODE[family], 7080)
    net.judge({"eth0": closed()}, replace(half, egress=(answer,)))
    assert reach(net.world, net.node, NODE[family], 7080)
    assert not tracked(net, 7080)
    assert dropped(net.world, net.node, NODE[family], 81)
    assert reach(net.world, net.node, NODE[family], 22)
    assert tracked(net, 22)


@BOTH
def test_a_denial_before_tracking_comes_before_everything(net: Node, family: int) -> None:
    early = about("u", do_not_track=True, ingress=(replace(to(80, 22), action="deny"),))
    net.judge({"eth0": closed()}, early, about("in", apply_on_forward=True, ingress=(ALLOW,)))
    assert dropped(net.world, net.node, NODE[family], 80)
    assert dropped(net.world, net.pods["a"], A[family], 80)
    assert reach(net.world, net.node, NODE[family], 81)
    assert reach(net.world, net.node, NODE[family], 22)


@BOTH
def test_untracking_by_others_is_no_way_round(net: Node, family: int) -> None:
    net.judge(
        {"eth0": closed()},
        about("u", do_not_track=True, ingress=(to(99),)),
        about("out", egress=(ALLOW,)),
    )
    net.sh(
        net.node,
        "nft 'add table inet other; add chain inet other c { type filter hook prerouting priority -300; };"
        " add rule inet other c tcp dport 80 notrack'",
    )
    try:
        assert dropped(net.world, net.node, NODE[family], 80)
    finally:
        net.sh(net.node, "nft delete table inet other")


@BOTH
def test_failsafes_are_the_configurations(net: Node, family: int) -> None:
    net.failsafes = Failsafes(
        inbound=(Failsafe(TCP, 80, nets("172.30.0.0/24", "fd00:172:30::/64")),),
        outbound=(Failsafe(UDP, 99),),
    )
    try:
        net.judge({"eth0": closed()})
        assert reach(net.world, net.node, NODE[family], 80)
        assert dropped(net.world, net.node, NODE[family], 80, bind=OUTSIDE[family])
        assert dropped(net.world, net.node, NODE[family], 22)
        assert reach(net.node, net.world, WORLD[family], 99, proto="udp")
        assert dropped(net.node, net.world, WORLD[family], 6443)
    finally:
        net.failsafes = Failsafes()


def test_established_connections_go_on_and_what_is_gone_leaves_nothing(net: Node) -> None:
    net.judge({"eth0": closed()})
    assert net.program is not None and HOST_IN in net.program.chains
    net.judge({})
    assert "host" not in net.sh(net.node, "nft list table inet towpath | grep -v hostport || true")
    assert reach(net.world, net.node, NODE4, 80)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Machine, Machine]]:
    made = two_nodes()
    made[0].add("a", *A)
    made[1].add("b", *B)
    yield made
    for machine in made:
        machine.close()


@BOTH
def test_tunnels_between_peers_need_no_policy(pair: tuple[Machine, Machine], family: int) -> None:
    one, two = pair
    nothing = about("u", do_not_track=True, ingress=(DENY,), egress=(DENY,))
    for interface, policies in (("eth0", (nothing,)), ("*", ())):
        for machine in pair:
            machine.program = program(machine, {interface: closed()}, *policies)
            machine.reconcile()
        assert reach(one.pods["a"], two.pods["b"], B[family], 80)
        assert dropped(one.netns, two.netns, WORLD[family], 80)


@BOTH
def test_what_is_denied_is_told_with_the_endpoint_and_the_rule(net: Node, family: int) -> None:
    listed = (
        about("in", order=1, apply_on_forward=True, ingress=(shut(81), to(80))),
        about("out", egress=(to(80),)),
        about("raw", do_not_track=True, ingress=(shut(82),)),
        about("front", pre_dnat=True, ingress=(shut(8081),)),
    )
    hosts = {"eth0": closed()}
    net.judge(hosts, *listed)
    engine = engine_of(net, hosts, *listed)
    names = {int(index): name for index, name in run_in(net.node, socket.if_nameindex)}
    ear = run_in(net.node, lambda: LogSocket(Sampling().group))

    def told(port: int) -> str:
        deadline = time.monotonic() + PATIENT
        while select.select([ear], [], [], max(0, deadline - time.monotonic()))[0]:
            for message in ear.read() or ():
                one = record(message, engine, Where("n1", {}, {}, names), 0.0)
                if one is not None and one.destination.port == port:
                    return f"{one.direction} {one.because()}"
        raise AssertionError("nothing was told")

    ours, theirs = NODE[family], WORLD[family]
    default = "default of tier default at HostEndpoint/h (in force: Policy"
    try:
        for source, target, address, port, said in (
            (net.world, net.node, ours, 81, "ingress spec.ingress[0] of Policy/in"),
            (net.world, net.node, ours, 83, f"ingress {default}/in)"),
            (net.node, net.world, theirs, 84, f"egress {default}/out)"),
            (net.world, net.pods["a"], A[family], 85, f"ingress {default}/in)"),
            (net.world, net.node, ours, 82, "ingress spec.ingress[0] of Policy/raw"),
            (net.world, net.node, ours, 8081, "ingress spec.ingress[0] of Policy/front"),
        ):
            assert dropped(source, target, address, port)
            found = told(port)
            assert found.startswith(said) and "at HostEndpoint/h" in found, (port, found)
    finally:
        ear.close()


@BOTH
def test_what_decides_is_found_in_the_kernel_and_counts(net: Node, family: int) -> None:
    """As ``policy explain`` asks of the node."""
    listed = (about("in", ingress=(shut(81), to(80))),)
    hosts = {"eth0": closed()}
    net.judge(hosts, *listed)
    table = node_state(net.snapshot()).state.nft
    inquiries = run_in(
        net.node,
        lambda: Inquiries(net.kernel, asyncio.Lock(), lambda: table, tuple, lambda: {"eth0": closed().name}),
    )

    def asked(port: int) -> Enforcement:
        question = Asked(
            direction="ingress",
            source=WORLD[family],
            destination=NODE[family],
            protocol=TCP,
            port=port,
            host=closed().name,
            aspects=("untracked", "pre-dnat", "local"),
        )
        return asyncio.run(inquiries.about(question))

    for port, allowed in ((80, True), (81, False), (83, False)):
        before = asked(port)
        assert before.allowed is allowed, before
        if allowed:
            assert reach(net.world, net.node, NODE[family], port)
        else:
            assert dropped(net.world, net.node, NODE[family], port)
            after = asked(port)
            counted = [hit.packets for hit in after.hits if hit.packets is not None]
            earlier = [hit.packets for hit in before.hits if hit.packets is not None]
            assert counted[-1] > earlier[-1], (port, after)
