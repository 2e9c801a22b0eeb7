"""What a node forwards, and its host endpoints' say in it: oracle, matrix and explanation agree."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policy_worlds import ADDRESSES, OUTSIDE, flow, host, hosted_worlds, nets, pod, policy
from towpath.model.failsafe import Failsafe, Failsafes
from towpath.policy.evaluate import Flow, passing, verdict
from towpath.policy.explain import explain
from towpath.policy.ir import KIND, TCP, Direction, Endpoint, Peer, Policy, Routing, Rule, World
from towpath.policy.matrix import diff, matrix
from towpath.policy.selector import equal

Address = IPv4Address | IPv6Address
EVERY_ADDRESS = tuple(map(ip_address, (*ADDRESSES, *OUTSIDE)))
NODES = st.sampled_from(("n1", "n1", "n2", ""))
ALLOW, DENY = Rule(action="allow", path="spec.ingress[0]"), Rule(action="deny", path="spec.ingress[0]")
A, B, AWAY, OUT = "10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1"
N1, N2 = "172.16.0.1", "172.16.0.2"


@st.composite
def routed_worlds(draw: st.DrawFn) -> World:
    """``hosted_worlds`` with pods on nodes, whose host endpoints stand somewhere.

    An address is one pod's or one node's: which of two a packet is from, nobody could tell.
    """
    drawn = draw(hosted_worlds())
    owners: dict[Address, str] = {}
    interfaces = {"HostEndpoint/a": st.sampled_from(("eth0", "", "eth0")), "HostEndpoint/b": st.just("*")}
    endpoints: list[Endpoint] = []
    for one in drawn.endpoints:
        if one.name in interfaces:
            addresses = tuple(map(ip_address, draw(st.sampled_from(((), ("10.0.0.7",), ("fd00::3",))))))
            interface = draw(interfaces[one.name])
            one = replace(one, node="n1", interface=interface, addresses=addresses)
        elif one.labels[KIND] == "pod":
            one = replace(one, node=draw(NODES))
        elif one.labels[KIND] == "node":
            one = replace(one, name=f"Node/{draw(NODES)}{'' if not endpoints else len(endpoints)}")
        owner = one.name if one.labels[KIND] == "pod" else one.node or one.name.removeprefix("Node/")
        own = tuple(a for a in one.addresses if owners.setdefault(a, owner) == owner)
        endpoints.append(replace(one, addresses=own))
    safe = Failsafes(inbound=(Failsafe(TCP, 22), Failsafe(TCP, 80, nets("10.0.0.0/30"))), outbound=())
    routing: Routing = draw(st.sampled_from(("tunnel", "direct", "either")))
    return replace(
        drawn,
        endpoints=tuple(endpoints),
        failsafes=draw(st.sampled_from((Failsafes(), safe))),
        routing=routing,
    )


@settings(max_examples=60)
@given(routed_worlds(), st.data())
def test_matrix_and_explanation_say_what_the_oracle_says(world: World, data: st.DataObject) -> None:
    found = matrix(world)
    for source in EVERY_ADDRESS:
        for destination in EVERY_ADDRESS:
            if source.version == destination.version:
                port = data.draw(st.sampled_from((22, 80, 81)))
                one = Flow(source=source, destination=destination, protocol=TCP, destination_port=port)
                allowed = verdict(world, one)
                assert found.between(source, destination).contains(TCP, one.source_port, port) == allowed, one
                assert explain(world, one).allowed == allowed


def at(name: str, node: str, interface: str, *addresses: str) -> Endpoint:
    return replace(host(name, *addresses, role=name), node=node, interface=interface)


def cluster(*endpoints: Endpoint, policies: tuple[Policy, ...] = ()) -> World:
    pods = (
        replace(pod("x/a", A), node="n1"),
        replace(pod("x/b", B), node="n1"),
        replace(pod("x/away", AWAY), node="n2"),
    )
    nodes = tuple(
        Endpoint(name=f"Node/{name}", labels={KIND: "node"}, addresses=(ip_address(address),))
        for name, address in (("n1", N1), ("n2", N2))
    )
    return World(endpoints=(*pods, *nodes, *endpoints), policies=policies)


def passed(world: World, source: str, destination: str) -> list[tuple[str, Direction]]:
    return [
        (one.endpoint.name.partition("/")[2], one.direction)
        for one in passing(world, flow(source, destination))
    ]


def test_who_is_passed_depends_on_where_a_flow_comes_and_goes() -> None:
    named = cluster(at("up", "n1", "eth0", N1), at("all", "n1", "*"))
    assert passed(named, OUT, A) == [("up", "ingress"), ("all", "egress")]
    assert passed(named, A, OUT) == [("all", "ingress"), ("up", "egress")]
    assert passed(named, A, B) == [("all", "ingress"), ("all", "egress")]
    assert passed(named, A, AWAY) == [("all", "ingress"), ("all", "egress")], "by the tunnel"
    assert passed(named, AWAY, A) == [("all", "ingress"), ("all", "egress")]
    assert passed(named, A, N2) == [("all", "ingress"), ("up", "egress")]
    assert passed(named, N2, A) == [("all", "ingress"), ("all", "egress")]
    assert passed(named, A, N1) == [("all", "ingress")], "before DNAT"
    for source, destination in ((N1, A), (OUT, AWAY), (OUT, N1), (N2, N1)):
        assert passed(named, source, destination) == []


def test_of_several_at_the_uplink_the_one_with_the_nodes_address_is_passed() -> None:
    one = cluster(at("second", "n1", "eth1"), at("up", "n1", "", N1))
    assert passed(one, OUT, A) == [("up", "ingress")]
    unknown = cluster(at("second", "n1", "eth1"), at("up", "n1", "eth0"), at("later", "n1", "eth0"))
    assert passed(unknown, OUT, A) == [("later", "ingress"), ("second", "ingress")], "up stands behind later"
    tunnel = cluster(at("tunnel", "n1", "flannel.1"), at("up", "n1", "eth0"))
    assert passed(tunnel, AWAY, A) == [("tunnel", "ingress")]
    assert passed(tunnel, A, AWAY) == [("tunnel", "egress")]


def test_where_nodes_route_directly_their_pods_come_by_the_uplink() -> None:
    named = cluster(at("up", "n1", "eth0", N1), at("tunnel", "n1", "flannel.1"), at("all", "n1", "*"))
    direct = replace(named, routing="direct")
    assert passed(direct, AWAY, A) == [("up", "ingress"), ("all", "egress")]
    assert passed(direct, A, AWAY) == [("all", "ingress"), ("up", "egress")]
    assert passed(direct, N2, A) == [("up", "ingress"), ("all", "egress")]
    assert passed(direct, A, N2) == [("all", "ingress"), ("up", "egress")]
    assert passed(direct, OUT, A) == passed(named, OUT, A)
    assert passed(direct, A, B) == passed(named, A, B)


def test_where_only_those_on_one_link_do_both_ways_are_asked() -> None:
    named = cluster(at("up", "n1", "eth0", N1), at("tunnel", "n1", "flannel.1"), at("all", "n1", "*"))
    either = replace(named, routing="either")
    assert passed(either, AWAY, A) == [("tunnel", "ingress"), ("up", "ingress"), ("all", "egress")]
    assert passed(either, A, AWAY) == [("all", "ingress"), ("tunnel", "egress"), ("up", "egress")]
    general = replace(cluster(at("all", "n1", "*")), routing="either")
    assert passed(general, AWAY, A) == [("all", "ingress"), ("all", "egress")], "each once"


def test_what_passes_is_judged_by_policies_that_say_so() -> None:
    up, role = at("up", "n1", "eth0", N1), equal("role", "up")
    away = flow(OUT, AWAY)
    for rule, allowed in ((DENY, False), (ALLOW, True)):
        forward = policy("f", selector=role, ingress=(rule,), apply_on_forward=True)
        assert verdict(cluster(up, policies=(forward,)), flow(OUT, A)) is allowed
        assert verdict(cluster(up, policies=(forward,)), away), "another node"
    nothing = policy("f", selector=role, ingress=(), apply_on_forward=True)
    assert not verdict(cluster(up, policies=(nothing,)), flow(OUT, A)), "the tier denies"
    own = policy("own", selector=role, ingress=(DENY,))
    assert verdict(cluster(up, policies=(own,)), flow(OUT, A)), "about the host's own connections only"
    told = explain(cluster(up, policies=(own,)), flow(OUT, A))
    assert told.sides[0].verdict.text == "allowed: no policy decides about what passes HostEndpoint/up"


def test_before_dnat_and_before_tracking_failsafes_go_on_and_no_further() -> None:
    up, role = at("up", "n1", "eth0", N1), equal("role", "up")
    for fields in ({"pre_dnat": True}, {"do_not_track": True}):
        early = policy("early", selector=role, ingress=(DENY,), apply_on_forward=True, **fields)
        world = cluster(up, policies=(early,))
        assert not verdict(world, flow(OUT, A, port=80))
        assert verdict(world, flow(OUT, A, port=22))
        late = policy("late", selector=role, ingress=(DENY,), apply_on_forward=True)
        assert not verdict(cluster(up, policies=(early, late)), flow(OUT, A, port=22))
        allowing = replace(early, ingress=(ALLOW,))
        assert verdict(cluster(up, policies=(allowing, late)), flow(OUT, A, port=80)), "asked nothing more"


def test_a_node_with_host_endpoints_and_its_own_pods_reach_each_other() -> None:
    up = at("up", "n1", "eth0", N1)
    closed = policy("closed", selector=equal(KIND, "pod"), ingress=())
    world = cluster(up, policies=(closed,))
    assert verdict(world, flow(N1, A))
    assert verdict(world, flow(A, N1))
    assert not verdict(world, flow(N1, AWAY))
    assert not verdict(world, flow(AWAY, N1))
    quiet = policy("quiet", selector=equal(KIND, "pod"), egress=())
    assert not verdict(cluster(up, policies=(quiet,)), flow(A, N1)), "its own egress counts"
    told = explain(world, flow(N1, A))
    assert "a node and its own pods reach each other" in " ".join(told.notes)


def test_failsafes_are_those_given() -> None:
    up = at("up", "n1", "eth0", N1)
    safe = Failsafes(inbound=(Failsafe(TCP, 2222, nets("192.0.2.0/24")),), outbound=())
    world = replace(cluster(up), failsafes=safe)
    assert verdict(world, flow(OUT, N1, port=2222))
    assert not verdict(world, flow(N2, N1, port=2222))
    assert not verdict(world, flow(OUT, N1, port=22))
    assert not verdict(world, flow(N1, OUT, port=53))
    assert "failsafe" in explain(world, flow(OUT, N1, port=2222)).sides[0].verdict.text
    assert matrix(world).between(ip_address(OUT), ip_address(N1)).contains(TCP, 50000, 2222)


def test_a_difference_knows_what_passes() -> None:
    up = at("up", "n1", "eth0", N1)
    forward = policy(
        "f",
        selector=equal("role", "up"),
        ingress=(Rule(action="allow", source=Peer(nets=nets("10.0.0.0/8"))),),
        apply_on_forward=True,
    )
    changes = diff(cluster(up), cluster(up, policies=(forward,))).changes
    denied = {member.names for one in changes if one.removed for member in one.destination.members}
    assert denied == {("Pod/x/a",), ("Pod/x/b",)}
