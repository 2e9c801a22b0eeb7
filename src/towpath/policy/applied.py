"""A set of policies that applies to local endpoints, and its rules, kept up to date by what has changed."""

from collections import Counter

from towpath.policy.cells import Own
from towpath.policy.clauses import PolicyRules
from towpath.policy.facts import Term, Traits
from towpath.policy.ir import Direction
from towpath.policy.policy_book import DIRECTIONS, PolicyBook, PolicyKey
from towpath.policy.terms import matches


class _OneWay:
    """The rules of one direction. ``silent``: those that stand for policies without clauses, how many each;
    they count in tiers in which nothing else speaks. ``spoken``: how many speak, by tier.
    """

    __slots__ = ("names", "rules", "silent", "speaking", "spoken", "terms")

    def __init__(self) -> None:
        self.rules: frozenset[PolicyRules] = frozenset()
        self.speaking: set[PolicyRules] = set()
        self.silent: Counter[PolicyRules] = Counter()
        self.spoken: Counter[str] = Counter()
        self.terms: Counter[Term] = Counter()
        self.names: Counter[str] = Counter()

    def add(self, rules: PolicyRules, by: int) -> None:
        """One more (1), or one less (-1)."""
        if not rules.clauses:
            self.silent[rules] += by
            return
        if by > 0:
            self.speaking.add(rules)
        else:
            self.speaking.discard(rules)
        self.spoken[rules.tier.name] += by
        for term in rules.own_terms:
            self.terms[term] += by
        for name in rules.own_names:
            self.names[name] += by

    def settle(self) -> None:
        """All of a change was added."""
        for counter in (self.silent, self.spoken, self.terms, self.names):
            if counter and not all(counter.values()):
                for key in [key for key, count in counter.items() if not count]:
                    del counter[key]
        silent = (rules for rules in self.silent if rules.tier.name not in self.spoken)
        self.rules = frozenset((*self.speaking, *silent))


class Applied:
    """``members``: the numbers of the local endpoints that share it, as bits. ``particular``: some rule asks
    something of the endpoint's own side.
    """

    __slots__ = ("_prepared", "_ways", "keys", "members", "particular")

    def __init__(self, keys: frozenset[PolicyKey]) -> None:
        self.keys = keys
        self.members = 0
        self.particular = False
        self._prepared: frozenset[PolicyKey] = frozenset()
        self._ways: dict[Direction, _OneWay] = {}

    def prepare(self, book: PolicyBook, touched: dict[PolicyKey, None]) -> bool:
        """Take the rules as they are now; ``touched``: whose rules may be others. Whether there was need."""
        keys, before = self.keys, self._prepared
        if self._ways and keys is before and touched.keys().isdisjoint(keys):
            return False
        gone = (before - keys) | (touched.keys() & before)
        come = (keys - before) | (touched.keys() & keys)
        for direction in DIRECTIONS:
            way = self._ways.setdefault(direction, _OneWay())
            for key in gone:
                if (rules := book.former(key, direction)) is not None:
                    way.add(rules, -1)
            for key in come:
                if (rules := book.ready(key, direction)) is not None:
                    way.add(rules, 1)
            way.settle()
        self._prepared = keys
        self.particular = any(way.terms or way.names for way in self._ways.values())
        return True

    def rules(self, direction: Direction) -> frozenset[PolicyRules]:
        """Those that speak of the direction."""
        return self._ways[direction].rules

    def asks_own(self, direction: Direction) -> bool:
        """Whether any of them asks something of the endpoint's own side."""
        way = self._ways[direction]
        return bool(way.terms or way.names)

    def own(self, direction: Direction, traits: Traits | None) -> Own:
        """What counts of the own side, for an address with these traits."""
        if traits is None:
            return Own()
        way = self._ways[direction]
        return Own(
            frozenset(term for term in way.terms if matches(term, traits)),
            frozenset(port for port in traits.ports if port.name in way.names),
        )
