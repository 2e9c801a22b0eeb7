"""Policies in their order, cut into runs: neighbours of one tier and one action.

A run keeps its number while what comes and goes lies within it, which is what most changes do.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter

from towpath.policy.clauses import Clause, PolicyRules
from towpath.policy.ir import Action, Tier

# With more changes than this at once everything is cut anew.
_FEW = 16
_place = attrgetter("place")


class Runs:
    """``first``: of each policy the number of the run that its first clause is in. ``actions`` and
    ``tier_of``: by run, the latter as an index of ``tiers``.
    """

    def __init__(self) -> None:
        self.first: dict[PolicyRules, int] = {}
        self.actions: list[Action] = []
        self.tier_of: list[int] = []
        self.tiers: list[Tier] = []
        self._policies: list[PolicyRules] = []

    def of(self, clause: Clause) -> int:
        """The number of the run that the clause is in."""
        return self.first[clause.rules] + clause.segment

    def replace(self, gone: Iterable[PolicyRules], come: Sequence[PolicyRules]) -> bool:
        """Other policies. Whether a number that there was stands for another run now, or a tier is other."""
        leaving, coming = dict.fromkeys(gone), list(come)
        if len(leaving) + len(coming) <= _FEW and self._fits(leaving, coming):
            return False
        self._policies = [rules for rules in self._policies if rules not in leaving]
        self._policies = sorted((*self._policies, *coming), key=_place)
        return self._cut()

    def _fits(self, leaving: dict[PolicyRules, None], coming: list[PolicyRules]) -> bool:
        """Carry it out as far as that changes no run; what is left is taken from the arguments or stays."""
        for rules in list(coming):
            place = bisect_left(self._policies, rules.place, key=_place)
            there = self._policies[place] if place < len(self._policies) else None
            if there is not None and there in leaving and _alike(there, rules):
                self._policies[place] = rules
                self.first[rules] = self.first.pop(there)
                del leaving[there]
            elif (run := self._run_at(place, rules)) is not None:
                self._policies.insert(place, rules)
                self.first[rules] = run
            else:
                return False
            coming.remove(rules)
        for rules in list(leaving):
            place = bisect_left(self._policies, rules.place, key=_place)
            while self._policies[place] is not rules:
                place += 1
            del self._policies[place]
            if self._run_at(place, rules) is None:
                return False
            del self.first[rules], leaving[rules]
        return True

    def _run_at(self, place: int, rules: PolicyRules) -> int | None:
        """The run of a neighbour that a policy of one action is in as well, None if there is none."""
        if len(rules.segments) != 1:
            return None
        if place:
            before = self._policies[place - 1]
            if before.segments and before.segments[-1] == rules.segments[0] and before.tier == rules.tier:
                return self.first[before] + len(before.segments) - 1
        if place < len(self._policies):
            behind = self._policies[place]
            if behind.segments and behind.segments[0] == rules.segments[0] and behind.tier == rules.tier:
                return self.first[behind]
        return None

    def _cut(self) -> bool:
        actions: list[Action] = []
        tier_of: list[int] = []
        tiers: list[Tier] = []
        first: dict[PolicyRules, int] = {}
        for rules in self._policies:
            if not tiers or tiers[-1].name != rules.tier.name:
                tiers.append(rules.tier)
            for place, action in enumerate(rules.segments):
                if not actions or actions[-1] != action or tier_of[-1] != len(tiers) - 1:
                    actions.append(action)
                    tier_of.append(len(tiers) - 1)
                if not place:
                    first[rules] = len(actions) - 1
        moved = any(self.first.get(rules, run) != run for rules, run in first.items())
        other = moved or (actions, tier_of, tiers) != (self.actions, self.tier_of, self.tiers)
        self.first, self.actions, self.tier_of, self.tiers = first, actions, tier_of, tiers
        return other


def _alike(one: PolicyRules, other: PolicyRules) -> bool:
    return bool(one.segments) and (one.place, one.segments, one.tier) == (
        other.place,
        other.segments,
        other.tier,
    )
