"""Compiled worlds: what the program does with packets, compared with what the oracle says."""

from ipaddress import ip_address
from itertools import product
from random import Random

from hypothesis import strategies as st
from msgspec.structs import replace

from policy_interpreter import applied, class_of, judged, table_of
from policy_worlds import ADDRESSES, KEYS, NAMES, OUTSIDE, PORTS, VALUES, rules, selectors, worlds
from towpath.model.nft import NftTable
from towpath.policy.engine import Batch, Engine
from towpath.policy.evaluate import Decision, Flow, walk
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    KIND,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Direction,
    Endpoint,
    NamedPort,
    Peer,
    Policy,
    Ports,
    Rule,
    World,
)
from towpath.policy.selector import All

OWNED = tuple(map(ip_address, ADDRESSES))
EVERY_ADDRESS = tuple(map(ip_address, (*ADDRESSES, *OUTSIDE)))
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


def interfaces(world: World) -> dict[str, str]:
    """Every endpoint whose policies are asked is on this node."""
    return {f"cali{n}": e.name for n, e in enumerate(world.endpoints) if e.labels.get(KIND) != "node"}


def compiled(world: World) -> NftTable:
    engine = Engine()
    engine.load(world)
    engine.set_local(interfaces(world))
    return table_of(engine.program())


def expected(world: World, endpoint: Endpoint, direction: Direction, flow: Flow) -> tuple[bool, list[str]]:
    """The verdict, and the beginnings of what is logged before it."""
    logged: list[str] = []
    for step in walk(world, endpoint, direction, flow):
        if isinstance(step, Decision):
            return step.allowed, logged
        if step.rule is not None and step.rule.action == "log" and not step.unmet:
            logged.append(f"tp:{step.policy} ")
    raise AssertionError("no decision")


def assert_same(world: World, table: NftTable, plugs: dict[str, str], tried: list[Flow]) -> None:
    """``tried`` say the protocol and the ports; they are sent from and to every address of every pod."""
    by_name = {endpoint.name: endpoint for endpoint in world.endpoints}
    for interface, name in plugs.items():
        endpoint = by_name[name]
        for own, peer in product(endpoint.addresses, EVERY_ADDRESS):
            if own.version == peer.version:
                for direction in DIRECTIONS:
                    source, destination = (own, peer) if direction == "egress" else (peer, own)
                    for one in tried:
                        flow = replace(one, source=source, destination=destination)
                        allowed, logged = expected(world, endpoint, direction, flow)
                        seen = judged(table, interface, direction, flow)
                        assert seen.allowed == allowed, (name, direction, flow)
                        assert len(seen.logged) == len(logged), (name, direction, flow)
                        assert all(map(str.startswith, seen.logged, logged))


def between(before: World, now: World) -> Batch:
    """The events that make one world of the other."""
    return Batch(
        removed_endpoints=tuple({e.name for e in before.endpoints} - {e.name for e in now.endpoints}),
        removed_network_sets=tuple(
            {s.name for s in before.network_sets} - {s.name for s in now.network_sets}
        ),
        removed_policies=tuple({p.key for p in before.policies} - {p.key for p in now.policies}),
        endpoints=now.endpoints,
        network_sets=now.network_sets,
        policies=now.policies,
        tiers=now.tiers,
    )


def samples(random: Random) -> list[Flow]:
    return [
        Flow(
            source=EVERY_ADDRESS[0],
            destination=EVERY_ADDRESS[0],
            protocol=random.choice((TCP, TCP, UDP, ICMP, 47)),
            source_port=random.choice((80, 81, 5000)),
            destination_port=random.choice((79, 80, 81, 443)),
            icmp_type=random.choice((0, 8)),
            icmp_code=random.choice((0, 1)),
        )
        for _ in range(4)
    ]


def behaviour(table: NftTable, tried: list[Flow]) -> list[object]:
    """What each interface's packets, from and to any address, come to."""
    found: list[object] = []
    for (name,) in sorted(table.sets["pod_to"].elements):
        for one, other in product(OWNED, EVERY_ADDRESS):
            if one.version == other.version:
                for source, destination in ((one, other), (other, one)):
                    for flow in tried:
                        sent = replace(flow, source=source, destination=destination)
                        found += (judged(table, str(name), direction, sent) for direction in DIRECTIONS)
    return found


def shape(table: NftTable) -> object:
    """All that does not depend on how classes are numbered and chains are called."""
    partition: dict[int, list[int]] = {}
    for place, address in enumerate(EVERY_ADDRESS):
        partition.setdefault(class_of(table, address), []).append(place)
    return (
        sorted(partition.values()),
        sorted(chain.rules for name, chain in table.chains.items() if name.startswith("cs-")),
        sorted((decl.key, len(decl.elements)) for decl in table.sets.values()),
        sorted(name[:3] for name in table.chains),
    )


def after(table: NftTable, engine: Engine) -> NftTable:
    """The table once the engine's changes are made, which is the program as it is."""
    update = engine.changes()
    changed = table if update is None else applied(table, update)
    assert engine.changes() is None
    assert table_of(engine.program()) == changed
    return changed


flows = st.builds(
    Flow,
    source=st.just(EVERY_ADDRESS[0]),
    destination=st.just(EVERY_ADDRESS[0]),
    protocol=st.sampled_from((TCP, TCP, TCP, UDP, SCTP, ICMP, ICMPV6, UDPLITE, 47)),
    source_port=st.sampled_from(PORTS),
    destination_port=st.sampled_from(PORTS),
    icmp_type=st.sampled_from((0, 3, 8, 128)),
    icmp_code=st.sampled_from((0, 1)),
)
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
named_ports = st.builds(
    NamedPort,
    name=st.sampled_from(NAMES),
    protocol=st.sampled_from((TCP, UDP)),
    port=st.sampled_from((80, 81, 443)),
)
several_flows = st.lists(flows, min_size=4, max_size=8)


_tiers = ("default", "default", "first", "last", "missing")


def dense_worlds() -> st.SearchStrategy[World]:
    """``worlds`` in which policies apply: most select everything, speak of both directions and have rules."""
    return _dense(rules())


def named_worlds() -> st.SearchStrategy[World]:
    """Rules are about ports that have names, on either side, and every endpoint has some."""
    names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True).map(tuple)
    about = st.builds(Ports, ranges=st.sampled_from(((), (), ((90, 90),))), names=names)
    sides = (
        "destination_ports",
        "destination_ports",
        "source_ports",
        "not_destination_ports",
        "not_source_ports",
    )
    named = st.builds(
        lambda rule, protocol, side, ports: replace(rule, protocol=protocol, **{side: ports}),
        _portless,
        st.sampled_from((TCP, TCP, UDP)),
        st.sampled_from(sides),
        about,
    )
    return _dense(named, min_ports=1)


_portless = st.builds(
    Rule,
    action=st.sampled_from(("allow", "allow", "deny", "pass")),
    source=st.builds(Peer, selector=st.one_of(st.none(), selectors)),
    destination=st.builds(Peer, selector=st.one_of(st.none(), selectors)),
)


@st.composite
def _dense(draw: st.DrawFn, rules: st.SearchStrategy[Rule], min_ports: int = 0) -> World:
    sparse = draw(worlds())
    lists = st.lists(rules, min_size=1, max_size=4).map(tuple)
    return replace(
        sparse,
        policies=tuple(
            Policy(
                kind="Policy",
                name=f"p{number}",
                tier=draw(st.sampled_from(_tiers)),
                order=draw(st.sampled_from((1.0, 2.0))),
                selector=draw(st.one_of(st.just(All()), st.just(All()), selectors)),
                ingress=draw(lists),
                egress=draw(lists),
            )
            for number in range(draw(st.integers(1, 4)))
        ),
        endpoints=tuple(
            Endpoint(
                name=f"{kind}/{number}",
                labels={**draw(labels), KIND: kind},
                addresses=tuple(draw(st.lists(st.sampled_from(OWNED), min_size=1, max_size=2, unique=True))),
                ports=tuple(draw(st.lists(named_ports, min_size=min_ports, max_size=2))),
                unmatched=draw(st.sampled_from(("allow", "deny"))),
            )
            for number, kind in enumerate(("pod", "pod", "hostendpoint", "node")[: draw(st.integers(2, 4))])
        ),
    )
