"""After any events the program is a fresh compiler's, and each transaction says exactly what changes."""

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policy_compiled import (
    DIRECTIONS,
    EVERY_ADDRESS,
    OWNED,
    assert_same,
    between,
    compiled,
    dense_worlds,
    interfaces,
    several_flows,
)
from policy_events import Events
from policy_interpreter import applied, check, class_of, judged, table_of
from towpath.model.nft import NftTable
from towpath.model.policy import POD_FROM, POD_TO
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow
from towpath.policy.ir import (
    ICMP,
    TCP,
    UDP,
    World,
)

EMPTY = NftTable(name="towpath", sets={decl.name: decl for decl in (POD_FROM, POD_TO)})


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


@pytest.mark.parametrize("seed", range(4))
def test_after_a_thousand_events_all_is_as_if_begun_now(seed: int) -> None:
    events, engine, table = Events(seed), Engine(), EMPTY
    done = 0
    while done < 1000:
        for _ in range(events.random.choice((1, 1, 1, 2, 20))):
            events.happen(engine)
            done += 1
        table = after(table, engine)
        if events.random.random() < 0.15:
            fresh = Engine()
            fresh.load(events.world())
            fresh.set_local(events.plugs)
            other = table_of(fresh.program())
            check(table)
            assert shape(table) == shape(other)
            tried = samples(events.random)
            assert behaviour(table, tried) == behaviour(other, tried)


@settings(max_examples=40, deadline=None)
@given(st.lists(dense_worlds(), min_size=2, max_size=4), several_flows)
def test_from_any_world_to_any_other(sequence: list[World], tried: list[Flow]) -> None:
    engine, table, world = Engine(), EMPTY, World()
    for now in sequence:
        engine.apply(between(world, now))
        engine.set_local(interfaces(now))
        world, table = now, after(table, engine)
    check(table)
    assert shape(table) == shape(compiled(world))
    assert_same(world, table, interfaces(world), tried)
