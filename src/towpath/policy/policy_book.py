"""Policies and tiers: which policies select whom, and the rules of those in force, made ready."""

from collections import Counter
from collections.abc import Iterable, Iterator

from towpath.policy.causes import LogRule
from towpath.policy.clauses import PolicyRules, compiled, log_identity, released
from towpath.policy.ir import BUILTIN_TIERS, Direction, Policy, Tier
from towpath.policy.label_index import LabelIndex
from towpath.policy.selector import NOTHING, Labels, Selector
from towpath.policy.terms import Terms
from towpath.policy.vocabulary import Vocabulary

PolicyKey = tuple[str, str, str]

DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
_NAMED = 5
_FIRST = (float("-inf"), "", "", "", "")


class _Selecting:
    """Policies with the same selector."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[PolicyKey, None] = {}


class PolicyBook:
    """``changed``: policies that are new, other or gone, or whose tier is other, until ``settled``."""

    def __init__(self, terms: Terms, vocabulary: Vocabulary) -> None:
        self.policies: dict[PolicyKey, Policy] = {}
        self.changed: dict[PolicyKey, None] = {}
        self._terms = terms
        self._vocabulary = vocabulary
        self._tiers = {tier.name: tier for tier in BUILTIN_TIERS}
        # Apart are policies that pods are not asked about: before tracking, and before DNAT.
        self._selecting: dict[tuple[bool, Selector], _Selecting] = {}
        self._indexes: dict[bool, LabelIndex[_Selecting]] = {False: LabelIndex(), True: LabelIndex()}
        self._uses: Counter[PolicyKey] = Counter()
        self._ready: dict[tuple[PolicyKey, Direction], tuple[Policy, PolicyRules]] = {}
        self._former: dict[tuple[PolicyKey, Direction], PolicyRules | None] = {}
        self._bare: dict[tuple[Tier, Direction], PolicyRules] = {}

    def upsert(self, policy: Policy) -> None:
        """New, or instead of the one with the same key."""
        old = self.policies.get(policy.key)
        if old == policy:
            return
        if old is not None:
            self._deselect(old)
        self.policies[policy.key] = policy
        self.changed[policy.key] = None
        place = (_apart(policy), policy.selector)
        selecting = self._selecting.get(place)
        if selecting is None:
            selecting = self._selecting[place] = _Selecting()
            self._indexes[place[0]].add(selecting, policy.selector)
        selecting.keys[policy.key] = None

    def remove(self, key: PolicyKey) -> None:
        """Gone; one that is not there is gone already."""
        old = self.policies.pop(key, None)
        if old is not None:
            self._deselect(old)
            self.changed[key] = None

    def upsert_tier(self, tier: Tier) -> None:
        """New, or instead of the one of that name, which may be built in."""
        if self._tiers.get(tier.name) != tier:
            self._tiers[tier.name] = tier
            self._touch_tier(tier.name)

    def remove_tier(self, name: str) -> None:
        """Gone; a built-in one is again what it was."""
        if self._tiers.pop(name, None) is not None:
            self._tiers.update((tier.name, tier) for tier in BUILTIN_TIERS if tier.name == name)
            self._touch_tier(name)

    def settled(self) -> None:
        """Whoever follows the changes has done so."""
        self.changed = {}

    def selecting(self, labels: Labels, *, host: bool = False) -> frozenset[PolicyKey]:
        """The policies that select the pod, or ``host`` endpoint, that has these labels."""
        indexes = self._indexes.values() if host else (self._indexes[False],)
        return frozenset(key for index in indexes for found in index.matching(labels) for key in found.keys)

    def selector(self, key: PolicyKey, *, host: bool = False) -> Selector:
        """Whom the policy selects, of pods or ``host`` endpoints; nobody if there is none."""
        policy = self.policies.get(key)
        if policy is None or (_apart(policy) and not host):
            return NOTHING
        return policy.selector

    def use(self, keys: Iterable[PolicyKey], by: int) -> list[PolicyKey]:
        """Policies are in force for one group of endpoints more (1) or less (-1).

        Returns those that had not been in force, or no longer are.
        """
        uses = self._uses
        turned = []
        for key in keys:
            uses[key] += by
            if uses[key] == (by > 0):
                turned.append(key)
        return turned

    def ready(self, key: PolicyKey, direction: Direction) -> PolicyRules | None:
        """The rules of a policy in force, None if it is silent of the direction. ``refresh`` comes first."""
        found = self._ready.get((key, direction))
        return found[1] if found is not None else None

    def former(self, key: PolicyKey, direction: Direction) -> PolicyRules | None:
        """As ``ready`` was before the last ``refresh``, until ``refreshed``."""
        if (key, direction) in self._former:
            return self._former[key, direction]
        return self.ready(key, direction)

    def refreshed(self) -> None:
        """Nobody asks for former rules any more."""
        self._former = {}

    def refresh(self, keys: Iterable[PolicyKey]) -> None:
        """Make ready what has come into force or changed, and give up what has gone out of it."""
        for key in keys:
            if not self._uses[key]:
                del self._uses[key]
            for direction in DIRECTIONS:
                self._refresh(key, direction)

    def logged(self, identity: str) -> LogRule | None:
        """The rule in force whose log lines end with this."""
        for (_, direction), (policy, rules) in self._ready.items():
            for clause in rules.clauses:
                if clause.action == "log" and log_identity(policy, direction, clause.index) == identity:
                    return LogRule(policy.tier, str(policy), direction, clause.rule.path, clause.index)
        return None

    def names(self, keys: Iterable[PolicyKey], direction: Direction, tier: str) -> tuple[str, ...]:
        """Of those of the tier that speak of the direction, in order; some, if there are many."""
        policies = (self.policies[key] for key in keys)
        spoken = [one for one in policies if one.tier == tier and one.rules(direction) is not None]
        return tuple(str(one) for one in sorted(spoken, key=lambda one: one.sort_key)[:_NAMED])

    def _refresh(self, key: PolicyKey, direction: Direction) -> None:
        policy = self.policies.get(key) if key in self._uses else None
        before = self._ready.pop((key, direction), None)
        self._former[key, direction] = before[1] if before is not None else None
        if policy is not None and policy.rules(direction) is not None:
            tier = self._tiers.get(policy.tier) or Tier(name=policy.tier)
            if before is not None and _same(before, policy, direction, tier):
                self._ready[key, direction] = (policy, before[1])
                return
            self._ready[key, direction] = (policy, self._compiled(policy, direction, tier))
        if before is not None:
            released(before[1], self._terms)
            for name in _names(before[1]):
                self._vocabulary.remove_name(name)

    def _compiled(self, policy: Policy, direction: Direction, tier: Tier) -> PolicyRules:
        rules = compiled(policy, direction, tier, self._terms)
        for name in _names(rules):
            self._vocabulary.add_name(name)
        if rules.clauses:
            return rules
        return self._bare.setdefault((tier, direction), PolicyRules(direction, tier, (tier.sort_key, _FIRST)))

    def _deselect(self, policy: Policy) -> None:
        place = (_apart(policy), policy.selector)
        selecting = self._selecting[place]
        del selecting.keys[policy.key]
        if not selecting.keys:
            self._indexes[place[0]].remove(self._selecting.pop(place))

    def _touch_tier(self, name: str) -> None:
        self.changed.update((key, None) for key, policy in self.policies.items() if policy.tier == name)


def _apart(policy: Policy) -> bool:
    return policy.do_not_track or policy.pre_dnat


def _names(rules: PolicyRules) -> Iterator[str]:
    """Of ports, each time one is asked for."""
    for clause in rules.clauses:
        yield from clause.peer_names
        yield from clause.own_names


def _same(before: tuple[Policy, PolicyRules], policy: Policy, direction: Direction, tier: Tier) -> bool:
    old, rules = before
    return (
        old.rules(direction) == policy.rules(direction)
        and old.sort_key == policy.sort_key
        and rules.tier == tier
    )
