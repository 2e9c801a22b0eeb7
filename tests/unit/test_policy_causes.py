"""What the engine says of single packets is what the oracle says, down to the rule."""

from itertools import product

from hypothesis import given, settings
from msgspec.structs import replace

from policy_compiled import DIRECTIONS, EVERY_ADDRESS, dense_worlds, interfaces, several_flows
from policy_worlds import host, hosted_worlds
from towpath.model.net import Addr
from towpath.policy.causes import Cause, Packet
from towpath.policy.clauses import log_identity
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Decision, Flow, walk
from towpath.policy.ir import ICMP, ICMPV6, Aspect, Direction, Endpoint, World


def packet_of(flow: Flow, direction: Direction) -> Packet:
    own, peer = (flow.source, flow.destination) if direction == "egress" else (flow.destination, flow.source)
    if flow.protocol in (ICMP, ICMPV6):
        return Packet(own, peer, flow.protocol, flow.icmp_type, flow.icmp_code)
    return Packet(own, peer, flow.protocol, flow.source_port, flow.destination_port)


def decided(world: World, endpoint: Endpoint, direction: Direction, flow: Flow) -> Decision:
    return next(step for step in walk(world, endpoint, direction, flow) if isinstance(step, Decision))


@settings(max_examples=60, deadline=None)
@given(dense_worlds(), several_flows)
def test_causes_are_the_oracles_decisions(world: World, tried: list[Flow]) -> None:
    engine = Engine()
    engine.load(world)
    engine.set_local(interfaces(world))
    local = set(interfaces(world).values())
    for endpoint in (one for one in world.endpoints if one.name in local):
        for own in endpoint.addresses:
            for peer in (address for address in EVERY_ADDRESS if address.version == own.version):
                for direction in DIRECTIONS:
                    _same(engine, world, endpoint, direction, own, peer, tried)


def _same(
    engine: Engine,
    world: World,
    endpoint: Endpoint,
    direction: Direction,
    own: Addr,
    peer: Addr,
    tried: list[Flow],
) -> None:
    source, destination = (own, peer) if direction == "egress" else (peer, own)
    for one in tried:
        flow = Flow(
            source=source,
            destination=destination,
            protocol=one.protocol,
            source_port=one.source_port,
            destination_port=one.destination_port,
            icmp_type=one.icmp_type,
            icmp_code=one.icmp_code,
        )
        packet = packet_of(flow, direction)
        want = decided(world, endpoint, direction, flow)
        why = engine.cause(endpoint.name, direction, packet)
        assert why is not None
        assert engine.allows(endpoint.name, direction, packet) == why.allowed == want.allowed
        assert why.tier == (want.tier.name if want.tier else "")
        assert why.policy == (str(want.policy) if want.policy else "")
        if want.policy and want.rule:
            rules = want.policy.rules(direction) or ()
            assert rules[why.index] == want.rule and why.path == want.rule.path
        assert why.policies == tuple(str(p) for p in want.applied)[:5]


@settings(max_examples=60, deadline=None)
@given(dense_worlds())
def test_a_log_lines_end_leads_to_its_rule(world: World) -> None:
    engine = Engine()
    engine.load(world)
    engine.set_local(interfaces(world))
    prefixes = {
        rule.split('"')[1]
        for chain in engine.program().chains.values()
        for rule in chain.rules
        if '"' in rule
    }
    policies = {str(policy): policy for policy in world.policies}
    for prefix in prefixes:
        rule = engine.logged(prefix.rpartition("#")[2])
        assert rule is not None and prefix.startswith(f"tp:{rule.policy} ") and len(prefix.encode()) <= 127
        policy = policies[rule.policy]
        rules = policy.rules(rule.direction) or ()
        assert rules[rule.index].action == "log" and policy.tier == rule.tier
    assert engine.logged(log_identity(world.policies[0], "ingress", 99)) is None


ASPECTS: tuple[Aspect, ...] = ("local", "forwarded", "untracked")
PLACES: list[tuple[Aspect, Direction]] = [*product(ASPECTS, DIRECTIONS), ("pre-dnat", "ingress")]
HOSTS = {"eth0": "HostEndpoint/a", "*": "HostEndpoint/b"}


@settings(max_examples=60, deadline=None)
@given(hosted_worlds(), several_flows)
def test_host_endpoints_causes_are_the_oracles_decisions(world: World, tried: list[Flow]) -> None:
    engine = Engine()
    engine.load(world)
    engine.set_hosts(HOSTS)
    by_name = {endpoint.name: endpoint for endpoint in world.endpoints}
    for (interface, name), (aspect, direction) in product(HOSTS.items(), PLACES):
        for source, destination in product(EVERY_ADDRESS, EVERY_ADDRESS):
            if source.version != destination.version or source == destination:
                continue
            for one in tried[:3]:
                flow = replace(one, source=source, destination=destination)
                steps = walk(world, by_name[name], direction, flow, aspect)
                want = next(step for step in steps if isinstance(step, Decision))
                why = engine.host_cause(interface, aspect, direction, packet_of(flow, direction))
                assert why is not None and why.host == name
                assert why.allowed == want.allowed
                assert why.tier == (want.tier.name if want.tier else "")
                assert why.policy == (str(want.policy) if want.policy else "")
                assert why.path == (want.rule.path if want.rule else "")
                assert why.policies == tuple(str(p) for p in want.applied)[:5]


def test_no_host_endpoint_stands_there() -> None:
    engine = Engine()
    packet = Packet(EVERY_ADDRESS[0], EVERY_ADDRESS[0], 6)
    assert engine.host_cause("eth0", "local", "ingress", packet) is None
    engine.load(World(endpoints=(host("h"),)))
    engine.set_hosts({"*": "HostEndpoint/h"})
    assert engine.host_cause("lo", "local", "ingress", packet) is None
    assert engine.host_cause("eth7", "local", "ingress", packet) == Cause(
        allowed=False, host="HostEndpoint/h"
    )


def test_who_is_not_known_is_not_judged() -> None:
    packet = Packet(EVERY_ADDRESS[0], EVERY_ADDRESS[0], 6)
    assert Engine().allows("Pod/x/y", "egress", packet) is None
    assert Engine().cause("Pod/x/y", "egress", packet) is None
