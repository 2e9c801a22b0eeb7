"""What a flow finds in the compiled table decides as the interpreter of tests and the oracle do."""

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from policy_compiled import DIRECTIONS, EVERY_ADDRESS, compiled, flows, interfaces
from policy_interpreter import judged
from policy_worlds import worlds
from towpath.model.nft import NftChain, NftSet, NftTable
from towpath.policy.evaluate import Flow
from towpath.policy.ir import World
from towpath.policy.traced import Element, RuleHit, Untraceable, allows, trace


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
