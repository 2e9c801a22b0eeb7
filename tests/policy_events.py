"""Random events in a cluster, as the engine is told of them."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from policy_compiled import OWNED
from policy_worlds import KEYS, NAMES, NETS, VALUES
from towpath.policy.engine import Engine
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
