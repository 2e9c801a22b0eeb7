"""What a flow finds in the compiled table decides as the interpreter of tests and the oracle do."""

from itertools import product

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from policy_compiled import DIRECTIONS, EVERY_ADDRESS, compiled, flows, interfaces
from policy_interpreter import judged, judged_at, table_of
from policy_worlds import hosted_worlds, worlds
from towpath.model.nft import NftChain, NftSet, NftTable
from towpath.model.policy import HOST_IN
from towpath.policy.engine import Engine
from towpath.policy.evaluate import HOST_ASPECTS, Flow
from towpath.policy.host_policies import CHAINS
from towpath.policy.ir import Aspect, Direction, World
from towpath.policy.traced import Element, RuleHit, Untraceable, allows, lets_pass, trace, trace_host


@settings(max_examples=60, deadline=None)
@given(world=worlds(), one=flows)
def test_it_ends_where_the_packet_does(world: World, one: Flow) -> None:
    table = compiled(world)
    for interface, name in interfaces(world).items():
        endpoint = next(e for e in world.endpoints if e.name == name)
        for own in endpoint.addresses[:1]:
            for peer in (address for address in EVERY_ADDRESS if address.version == own.version):
                for direction in DIRECTIONS:
                    source, destination = (own, peer) if direction == "egress" else (peer, own)
                    flow = replace(one, source=source, destination=destination)
                    hits = trace(table, interface, direction, flow)
                    assert allows(hits) == judged(table, interface, direction, flow).allowed
                    for hit in hits:
                        if isinstance(hit, Element):
                            assert table.sets[hit.set].elements[hit.key] == hit.data
                        else:
                            assert hit.text in table.chains[hit.chain].rules


HOSTS = {"eth0": "HostEndpoint/a", "*": "HostEndpoint/b"}
ORDERS: tuple[tuple[Direction, tuple[Aspect, ...]], ...] = (
    *HOST_ASPECTS.items(),
    ("ingress", ("untracked", "pre-dnat", "forwarded")),
    ("ingress", ("pre-dnat",)),
    ("egress", ("forwarded",)),
)


@settings(max_examples=60, deadline=None)
@given(world=hosted_worlds(), one=flows)
def test_at_host_endpoints_too(world: World, one: Flow) -> None:
    engine = Engine()
    engine.load(world)
    engine.set_hosts(HOSTS)
    table = table_of(engine.program())
    for interface, (direction, aspects) in product(HOSTS, ORDERS):
        for source, destination in product(EVERY_ADDRESS, EVERY_ADDRESS):
            if source.version != destination.version:
                continue
            flow = replace(one, source=source, destination=destination)
            expected = True
            for aspect in aspects:  # up to the first that decides
                verdict, _ = judged_at(table, CHAINS[aspect, direction], interface, flow)
                if verdict is not None:
                    expected = verdict
                    break
            assert lets_pass(trace_host(table, interface, direction, aspects, flow)) == expected


def test_where_no_host_endpoint_asks_nothing_is_found() -> None:
    empty = NftTable(name="t", sets={}, chains={})
    assert trace_host(empty, "eth0", "ingress", ("local",), FLOW) == ()
    assert lets_pass(())
    odd = NftTable(name="t", sets={}, chains={HOST_IN: NftChain(name=HOST_IN, rules=("meta mark 7 return",))})
    with pytest.raises(Untraceable):
        trace_host(odd, "eth0", "ingress", ("local",), FLOW)


FLOW = Flow(source=EVERY_ADDRESS[0], destination=EVERY_ADDRESS[0], protocol=6, destination_port=80)


def table(*rules: str) -> NftTable:
    plugged = NftSet(name="pod_to", key=("ifname",), data=("verdict",), elements={("cali0",): ("goto pi-1",)})
    return NftTable(name="t", sets={"pod_to": plugged}, chains={"pi-1": NftChain(name="pi-1", rules=rules)})


def test_an_interface_without_a_verdict_finds_nothing() -> None:
    assert trace(table(), "cali1", "ingress", FLOW) == ()
    assert trace(table(), "cali0", "egress", FLOW) == ()
    assert not allows(())


def test_what_decides_nothing_is_passed_over() -> None:
    logged = (
        'meta l4proto 6 log prefix "a return" group 4',
        "limit rate 5/second counter",
        "counter goto denied",
    )
    *_, last = trace(table(*logged), "cali0", "ingress", FLOW)
    assert last == RuleHit("pi-1", "counter goto denied")
    assert not allows((last,))


@pytest.mark.parametrize(
    "rules", [(), ("meta mark 7 return",), ("ip saddr @foreign return",), ("goto gone",)]
)
def test_a_form_that_is_not_known_is_said_so(rules: tuple[str, ...]) -> None:
    with pytest.raises(Untraceable):
        trace(table(*rules), "cali0", "ingress", FLOW)
