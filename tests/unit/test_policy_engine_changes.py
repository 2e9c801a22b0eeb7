"""After any events the program is a fresh compiler's, and each transaction says exactly what changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_compiled import (
    after,
    assert_same,
    behaviour,
    between,
    compiled,
    dense_worlds,
    interfaces,
    samples,
    several_flows,
    shape,
)
from policy_events import Events
from policy_interpreter import EMPTY, check, table_of
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow
from towpath.policy.ir import World


@pytest.mark.parametrize("seed", range(4))
def test_after_a_thousand_events_all_is_as_if_begun_now(seed: int) -> None:
    events, engine, table = Events(seed), Engine(), EMPTY
    done = 0
    while done < 1000:
        for _ in range(events.random.choice((1, 1, 1, 2, 20))):
            events.happen(engine)
            done += 1
        table = after(table, engine)
        if events.random.random() < 0.05 or done >= 1000:
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
