"""The matrix says of every pair and port what the oracle says, in the fewest classes, and quickly."""

from ipaddress import ip_address
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_worlds import ADDRESSES, OUTSIDE, PORTS, flow, host, nets, node, pod, policies, policy, worlds
from towpath.model.net import Addr
from towpath.policy.connections import ALL, NOTHING, Connections, everything, part
from towpath.policy.evaluate import Flow, endpoints_at, verdict
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    NamedPort,
    Peer,
    Policy,
    Ports,
    Rule,
    World,
    pods_only,
)
from towpath.policy.matrix import diff, matrix
from towpath.policy.places import Places
from towpath.policy.selector import All, equal

TCP_80 = part(TCP, everything(TCP), ((80, 80),))
EVERY_ADDRESS = tuple(map(ip_address, (*ADDRESSES, *OUTSIDE)))


def sampled_flows(source: Addr, destination: Addr) -> list[Flow]:
    """Every protocol that matters, ports on both sides of every boundary that worlds have."""
    found = [
        Flow(
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=first,
            destination_port=second,
        )
        for protocol in PORT_PROTOCOLS
        for first in (80, 50000)
        for second in PORTS
    ]
    found += [
        Flow(source=source, destination=destination, protocol=protocol, icmp_type=kind, icmp_code=code)
        for protocol in (ICMP, ICMPV6)
        for kind in (3, 8)
        for code in (0, 1)
    ]
    return found + [Flow(source=source, destination=destination, protocol=n) for n in (UDPLITE, 47, 0)]


def contains(connections: Connections, one: Flow) -> bool:
    if one.protocol in PORT_PROTOCOLS:
        return connections.contains(one.protocol, one.source_port, one.destination_port)
    return connections.contains(one.protocol, one.icmp_type, one.icmp_code)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.data())
def test_the_matrix_is_what_the_oracle_says(world: World, data: st.DataObject) -> None:
    found = matrix(world)
    for source in EVERY_ADDRESS:
        for destination in EVERY_ADDRESS:
            if source.version == destination.version:
                one = data.draw(st.sampled_from(sampled_flows(source, destination)))
                assert contains(found.between(source, destination), one) == verdict(world, one), one


@settings(max_examples=25, deadline=None)
@given(worlds())
def test_the_matrix_is_what_the_oracle_says_on_every_port(world: World) -> None:
    found = matrix(world)
    for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::99"), ("10.9.0.1", "10.0.0.1")):
        ends = ip_address(source), ip_address(destination)
        for one in sampled_flows(*ends):
            assert contains(found.between(*ends), one) == verdict(world, one), one


@given(worlds())
def test_classes_are_the_fewest_that_tell_rows_and_columns_apart(world: World) -> None:
    found = matrix(world)
    rows = [(one.kind, one.family, row) for one, row in zip(found.sources, found.cells, strict=True)]
    columns = [
        (one.kind, one.family, column)
        for one, column in zip(found.destinations, zip(*found.cells, strict=True), strict=True)
    ]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    for classes in (found.sources, found.destinations):
        members = [member for one in classes for member in one.members]
        assert sorted(map(str, members)) == sorted(map(str, Places(world).places))


@settings(max_examples=40, deadline=None)
@given(worlds(), policies())
def test_a_difference_is_that_of_the_matrices(world: World, changed: list[Policy]) -> None:
    other = World(
        tiers=world.tiers,
        policies=tuple(changed),
        endpoints=world.endpoints,
        network_sets=world.network_sets[:1],
    )
    before, after = matrix(world), matrix(other)
    found = diff(world, other)
    assert not found.before
    assert not found.after
    told: dict[tuple[Addr | None, Addr | None], tuple[Connections, Connections]] = {}
    for change in found.changes:
        assert change.added or change.removed
        for source in change.source.members:
            for destination in change.destination.members:
                told[source.address, destination.address] = change.added, change.removed
    owned = [address for endpoint in world.endpoints for address in endpoint.addresses]
    for start in owned:
        for end in owned:
            if start.version == end.version and not shared(world, start, end):
                was, now = before.between(start, end), after.between(start, end)
                assert told.get((start, end), (NOTHING, NOTHING)) == (now - was, was - now)


def shared(world: World, start: Addr, end: Addr) -> bool:
    return any(endpoint in endpoints_at(world, end) for endpoint in endpoints_at(world, start))


@given(worlds())
def test_nothing_differs_from_itself(world: World) -> None:
    assert diff(world, world).changes == ()


A, B = pod("x/a", "10.0.0.1", app="a"), pod("x/b", "10.0.0.2", app="b")
MORE = tuple(pod(f"x/b{n}", f"10.0.1.{n}", app="b") for n in range(20))
WEB = policy(
    "web",
    selector=equal("app", "b"),
    ingress=(
        Rule(
            action="allow",
            protocol=TCP,
            source=Peer(selector=equal("app", "a")),
            destination_ports=Ports(((80, 80),)),
        ),
        Rule(action="allow", source=Peer(nets=nets("192.0.2.0/24"), not_nets=nets("192.0.2.128/25"))),
    ),
)


def test_replicas_are_one_class_and_networks_outside_have_theirs() -> None:
    world = World(endpoints=(A, B, *MORE, node("n", "192.0.2.200")), policies=(WEB,))
    found = matrix(world)
    four = [one for one in found.destinations if one.family == 4]
    assert [(one.kind, len(one.members)) for one in four] == [
        ("pod", 1),
        ("pod", 21),
        ("node", 1),
        ("outside", 3),
    ]
    assert [str(one) for one in found.sources if one.family == 4 and len(one.members) == 1] == [
        "Pod/x/a (10.0.0.1)",
        "Node/n (192.0.2.200)",
        "192.0.2.0/24 except 192.0.2.128/25",
    ]
    assert found.between(ip_address("10.0.0.1"), ip_address("10.0.1.7")) == TCP_80
    assert found.between(ip_address("192.0.2.7"), ip_address("10.0.1.7")) == ALL
    assert found.between(ip_address("192.0.2.200"), ip_address("10.0.1.7")) == NOTHING
    assert found.between(ip_address("10.0.1.8"), ip_address("10.0.1.7")) == NOTHING
    assert found.between(ip_address("10.0.1.7"), ip_address("10.0.1.7")) == ALL


def test_a_host_endpoint_speaks_for_its_node() -> None:
    world = World(endpoints=(A, node("n", "192.0.2.1"), host("n", "192.0.2.1")))
    found = matrix(world)
    open_to_all = found.between(ip_address("10.0.0.1"), ip_address("192.0.2.1"))
    assert str(open_to_all) == "tcp 22,179,2379-2380,5473,6443,6666-6667,9345,10250; udp 68,546"
    assert [one.kind for one in found.destinations if one.family == 4] == ["pod", "hostendpoint", "outside"]


def test_a_difference_names_classes_ports_and_what_came_and_went() -> None:
    opened = policy(
        "web", selector=WEB.selector, ingress=(*(WEB.ingress or ()), Rule(action="allow", protocol=UDP))
    )
    new = pod("x/new", "10.0.0.9", app="a")
    before = World(endpoints=(A, B, *MORE), policies=(WEB,))
    after = World(endpoints=(A, B, *MORE[1:], new), policies=(opened,))
    found = diff(before, after)
    assert [str(place) for place in found.before] == ["Pod/x/b0 (10.0.1.0)"]
    assert [str(place) for place in found.after] == ["Pod/x/new (10.0.0.9)"]
    every_udp = Connections(1 << UDP)
    assert {(change.added, change.removed) for change in found.changes} == {(every_udp, NOTHING)}
    assert {len(change.destination.members) for change in found.changes} == {20}
    assert "192.0.2.0/24 except 192.0.2.128/25" not in {str(change.source) for change in found.changes}


def test_named_ports_make_classes() -> None:
    web = pod("x/w", "10.0.0.3", ports=(NamedPort("http", TCP, 80),))
    alt = pod("x/v", "10.0.0.4", ports=(NamedPort("http", TCP, 8080), NamedPort("http", SCTP, 80)))
    rule = Rule(action="allow", protocol=TCP, destination_ports=Ports(names=("http",)))
    found = matrix(
        World(endpoints=(A, web, alt), policies=(policy("p", selector=pods_only(All()), ingress=(rule,)),))
    )
    outside = ip_address("192.0.2.1")
    assert found.between(outside, ip_address("10.0.0.3")) == TCP_80
    assert found.between(outside, ip_address("10.0.0.4")) == part(TCP, everything(TCP), ((8080, 8080),))
    assert found.between(outside, ip_address("10.0.0.1")) == NOTHING


def large(pods: int, count: int, seed: int = 1) -> World:
    """Pods of many applications in namespaces; each policy selects one, and lets in two and a network."""
    random = Random(seed)
    apps = [(f"ns{random.randrange(50)}", f"app{n}") for n in range(pods // 4)]
    endpoints = []
    for number in range(pods):
        namespace, app = random.choice(apps)
        endpoints.append(
            pod(
                f"{namespace}/{app}-{number}",
                f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
                f"fd00::{number + 1:x}",
                app=app,
                instance=str(number),
                tier=f"t{random.randrange(4)}",
                ports=(NamedPort("http", TCP, random.choice((80, 8080))),),
            )
        )
    found = []
    for number in range(count):
        rules = tuple(
            Rule(
                action="allow",
                protocol=TCP,
                source=Peer(selector=equal("app", random.choice(apps)[1])),
                destination_ports=Ports(((port, port),), random.choice(((), ("http",)))),
            )
            for port in random.sample((80, 443, 5432, 6379, 9090), 2)
        )
        block = Rule(action="allow", source=Peer(nets=nets(f"172.16.{number & 255}.0/24")))
        found.append(
            policy(f"p{number}", selector=equal("app", random.choice(apps)[1]), ingress=(*rules, block))
        )
        if number % 4 == 0:
            found[-1] = policy(
                f"p{number}",
                selector=equal("app", random.choice(apps)[1]),
                egress=(Rule(action="allow", destination=Peer(selector=equal("tier", "t1"))), block),
            )
    return World(endpoints=tuple(endpoints), policies=tuple(found))


def test_a_large_world() -> None:
    world = large(1500, 400)
    found = matrix(world)
    random = Random(2)
    for _ in range(20):
        source, destination = (random.choice(world.endpoints).addresses[0] for _ in range(2))
        connections = found.between(source, destination)
        for port in (80, 443, 8080, 22):
            assert connections.contains(TCP, 50000, port) == verdict(
                world, flow(str(source), str(destination), port=port, source_port=50000)
            )


def test_a_world_without_replicas_is_no_trap() -> None:
    endpoints = [pod(f"x/p{n}", f"10.0.{n >> 8}.{n & 255}", app=f"a{n}") for n in range(400)]
    each = [
        policy(
            f"p{n}",
            selector=equal("app", f"a{n}"),
            ingress=(Rule(action="allow", source=Peer(selector=equal("app", f"a{n - 1}"))),),
        )
        for n in range(400)
    ]
    found = matrix(World(endpoints=tuple(endpoints), policies=tuple(each)))
    assert len([one for one in found.destinations if one.kind == "pod"]) == 400
    assert found.between(ip_address("10.0.0.6"), ip_address("10.0.0.7")) == ALL
    assert found.between(ip_address("10.0.0.7"), ip_address("10.0.0.6")) == NOTHING
