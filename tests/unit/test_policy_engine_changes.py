"""After any events the program is a fresh compiler's, and each transaction says exactly what changes."""

from collections.abc import Callable
from itertools import product
from random import Random
from typing import TypeVar

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
from policy_interpreter import applied, check, class_of, judged, table_of
from policy_worlds import KEYS, NAMES, NETS, VALUES
from towpath.model.nft import NftTable
from towpath.model.policy import POD_FROM, POD_TO
from towpath.policy.engine import Engine
from towpath.policy.evaluate import Flow
from towpath.policy.ir import (
    ICMP,
    KIND,
    TCP,
    UDP,
    Action,
    Default,
    Endpoint,
    Icmp,
    NamedPort,
    NetworkSet,
    Peer,
    Policy,
    Ports,
    Rule,
    Tier,
    World,
)
from towpath.policy.selector import All, Has, In, Not, Selector, Text, conjunction, disjunction

Value = TypeVar("Value")
TIERS = ("default", "first", "last", "missing")
EMPTY = NftTable(name="towpath", sets={decl.name: decl for decl in (POD_FROM, POD_TO)})
DEFAULTS: tuple[Default, ...] = ("deny", "pass", "allow")


class Events:
    """Random events, and the world that they come to."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.endpoints: dict[str, Endpoint] = {}
        self.network_sets: dict[str, NetworkSet] = {}
        self.policies: dict[tuple[str, str, str], Policy] = {}
        self.tiers: dict[str, Tier] = {}
        self.plugs: dict[str, str] = {}

    def world(self) -> World:
        return World(
            tiers=tuple(self.tiers.values()),
            policies=tuple(self.policies.values()),
            endpoints=tuple(self.endpoints.values()),
            network_sets=tuple(self.network_sets.values()),
        )

    def happen(self, engine: Engine) -> None:
        """One event, told to the compiler."""
        kinds: tuple[tuple[int, Callable[[Engine], None]], ...] = (
            (4, self._endpoint),
            (5, self._policy),
            (1, self._unpolicy),
            (1, self._network_set),
            (1, self._tier),
            (2, self._plug),
            (1, self._gone),
        )
        ((_, event),) = self.random.choices(kinds, [weight for weight, _ in kinds])
        event(engine)

    def _endpoint(self, engine: Engine) -> None:
        name = f"e{self.random.randrange(7)}"
        old = self.endpoints.get(name)
        keep = old is not None and self.random.random() < 0.6
        one = self.endpoints[name] = Endpoint(
            name=name,
            labels={**self._labels(), KIND: self.random.choice(("pod", "pod", "node"))},
            addresses=old.addresses if old and keep else tuple(self._some(OWNED, 2)),
            ports=tuple(
                NamedPort(self.random.choice(NAMES), self.random.choice((TCP, UDP)), 80 + n)
                for n in range(self.random.randrange(3))
            ),
            unmatched=self.random.choice(("allow", "allow", "deny")),
        )
        engine.upsert_endpoint(one)

    def _gone(self, engine: Engine) -> None:
        name = f"e{self.random.randrange(7)}"
        self.endpoints.pop(name, None)
        engine.remove_endpoint(name)

    def _plug(self, engine: Engine) -> None:
        interface = f"cali{self.random.randrange(6)}"
        if self.random.random() < 0.2:
            self.plugs.pop(interface, None)
        else:
            self.plugs[interface] = f"e{self.random.randrange(7)}"
        engine.set_local(self.plugs)

    def _network_set(self, engine: Engine) -> None:
        name = f"s{self.random.randrange(3)}"
        if self.random.random() < 0.3:
            self.network_sets.pop(name, None)
            engine.remove_network_set(name)
            return
        one = NetworkSet(
            name=name, labels={**self._labels(), KIND: "networkset"}, nets=tuple(self._some(NETS, 3))
        )
        self.network_sets[name] = one
        engine.upsert_network_set(one)

    def _tier(self, engine: Engine) -> None:
        name = self.random.choice(TIERS)
        if self.random.random() < 0.3:
            self.tiers.pop(name, None)
            engine.remove_tier(name)
            return
        order = self.random.choice((1.0, 2e6))
        self.tiers[name] = Tier(name=name, order=order, default=self.random.choice(DEFAULTS))
        engine.upsert_tier(self.tiers[name])

    def _unpolicy(self, engine: Engine) -> None:
        key = ("Policy", "", f"p{self.random.randrange(8)}")
        self.policies.pop(key, None)
        engine.remove_policy(key)

    def _policy(self, engine: Engine) -> None:
        one = Policy(
            kind="Policy",
            name=f"p{self.random.randrange(8)}",
            tier=self.random.choice(TIERS),
            order=self.random.choice((1.0, 2.0)),
            selector=All() if self.random.random() < 0.5 else self._selector(),
            ingress=self._rules(),
            egress=self._rules(),
            pre_dnat=self.random.random() < 0.05,
        )
        self.policies[one.key] = one
        engine.upsert_policy(one)

    def _rules(self) -> tuple[Rule, ...] | None:
        if self.random.random() < 0.2:
            return None
        return tuple(self._rule() for _ in range(self.random.randrange(4)))

    def _rule(self) -> Rule:
        actions: tuple[Action, ...] = ("allow", "allow", "allow", "deny", "pass", "log")
        protocol = self.random.choice((None, TCP, TCP, UDP, ICMP))
        icmp = Icmp(self.random.choice((0, 8)), self.random.choice((None, 1)))
        ported = protocol in (TCP, UDP)
        return Rule(
            action=self.random.choice(actions),
            family=self.random.choice((None, None, None, 4, 6)),
            protocol=protocol,
            icmp=icmp if protocol == ICMP else None,
            source=self._peer(),
            destination=self._peer(),
            destination_ports=self._ports() if ported and self.random.random() < 0.7 else None,
            source_ports=self._ports() if ported and self.random.random() < 0.2 else None,
            not_destination_ports=self._ports() if ported and self.random.random() < 0.2 else None,
        )

    def _ports(self) -> Ports:
        ranges = self.random.choice(((), ((80, 80),), ((80, 81), (443, 443)), ((0, 65535),)))
        return Ports(ranges, tuple(self._some(NAMES, 2)))

    def _peer(self) -> Peer:
        roll = self.random.random
        return Peer(
            selector=self._selector() if roll() < 0.4 else None,
            not_selector=self._selector() if roll() < 0.15 else None,
            nets=tuple(self._some(NETS, 3)) if roll() < 0.25 else None,
            not_nets=tuple(self._some(NETS, 1)) if roll() < 0.2 else (),
        )

    def _selector(self) -> Selector:
        roll, key = self.random.random(), self.random.choice(KEYS)
        if roll < 0.15:
            return Has(key)
        if roll < 0.55:
            return In(key, tuple(sorted(self._some(VALUES, 2))))
        if roll < 0.65:
            how = self.random.choice(("contains", "starts with", "ends with"))
            return Text(key, how, self.random.choice(("a", "b")))
        if roll < 0.75:
            return Not(self._selector())
        if roll < 0.8:
            return All()
        join = conjunction if roll < 0.92 else disjunction
        return join(self._selector(), self._selector())

    def _labels(self) -> dict[str, str]:
        return {key: self.random.choice(VALUES) for key in self._some(KEYS, 3)}

    def _some(self, values: tuple[Value, ...], most: int) -> list[Value]:
        return self.random.sample(values, self.random.randint(0, most))


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
