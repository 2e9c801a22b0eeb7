"""After a thousand changes of API objects of every kind, all is as if read now, and as the oracle says."""

from typing import Any

import pytest

from policy_compiled import after, assert_same, behaviour, samples, shape
from policy_interpreter import EMPTY, check, table_of
from policy_object_events import Cluster
from policy_told import Told
from towpath.policy.engine import Engine
from towpath.policy.objects import Objects

EVENTS = 1000


@pytest.mark.parametrize("seed", range(8))
def test_after_a_thousand_changes_all_is_as_if_read_now(seed: int) -> None:
    cluster, engine, table = Cluster(seed), Engine(), EMPTY
    objects, kinds = Objects(engine), set[str]()
    done = 0
    while done < EVENTS:
        for _ in range(cluster.random.choice((1, 1, 2, 20))):
            kinds.add(cluster.change(objects))
            done += 1
        engine.set_local(cluster.plugs())
        table = after(table, engine)
        if cluster.random.random() < 0.06 or done >= EVENTS:
            _as_if_read_now(cluster, table, objects)
    assert len(kinds) == 8


def _as_if_read_now(cluster: Cluster, table: Any, objects: Objects) -> None:
    told, fresh = Told(), Engine()
    cluster.tell_all(Objects(told))
    again = Objects(fresh)
    cluster.tell_all(again)
    fresh.set_local(cluster.plugs())
    other = table_of(fresh.program())
    check(table)
    assert shape(table) == shape(other)
    tried = samples(cluster.random)
    assert behaviour(table, tried) == behaviour(other, tried)
    known = {plug: name for plug, name in cluster.plugs().items() if name in told.endpoints}
    assert_same(told.world(), table, known, tried)
    assert {str(f) for f in objects.findings()} == {str(f) for f in again.findings()}
