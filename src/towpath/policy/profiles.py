"""Profiles: what the selectors in use can tell apart of what is labelled, and which of them match each.

Selectors are answered for all profiles at once, by integers used as bit sets: bit N is profile number N.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import and_, or_

from towpath.policy.facts import Profile, Used
from towpath.policy.label_index import LabelIndex
from towpath.policy.places import ones
from towpath.policy.selector import All, And, Has, In, Not, Or, Selector, Text
from towpath.policy.vocabulary import Reduced


class Profiles:
    """All profiles, and the selectors in use. ``changed`` gathers profiles whose ``selected`` did."""

    def __init__(self) -> None:
        self.changed: dict[Profile, None] = {}
        self._index: LabelIndex[Used] = LabelIndex()
        self._by_reduced: dict[Reduced, Profile] = {}
        self._by_number: dict[int, Profile] = {}
        self._free: list[int] = []
        self._every = 0
        self._values: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def obtain(self, reduced: Reduced) -> Profile:
        """The profile of what reduces so; whoever takes it is a user until ``release``."""
        profile = self._by_reduced.get(reduced)
        if profile is None:
            profile = self._create(reduced)
        profile.users += 1
        return profile

    def release(self, profile: Profile) -> None:
        """One user less."""
        profile.users -= 1
        if profile.users:
            return
        bit = 1 << profile.number
        self._every ^= bit
        for key, value in profile.labels.items():
            values = self._values[key]
            values[value] ^= bit
            if not values[value]:
                del values[value]
        del self._by_reduced[profile.reduced], self._by_number[profile.number]
        self.changed.pop(profile, None)
        self._free.append(profile.number)

    def expect(self, selectors: Iterable[Used]) -> None:
        """Profiles to come are asked for these as well."""
        for used in selectors:
            self._index.add(used, used.selector)

    def begin(self, selectors: Iterable[Used]) -> None:
        """These, expected before, are asked of the profiles there are. The vocabulary must have them."""
        for used in selectors:
            for number in ones(answer(used.selector, self._every, self._values)):
                profile = self._by_number[number]
                if used not in profile.selected:
                    profile.selected.add(used)
                    self.changed[profile] = None

    def end(self, selectors: Iterable[Used]) -> None:
        """These are in use no longer. The vocabulary must still have them."""
        for used in selectors:
            self._index.remove(used)
            for number in ones(answer(used.selector, self._every, self._values)):
                profile = self._by_number[number]
                profile.selected.discard(used)
                self.changed[profile] = None

    def selecting(self, selectors: set[Used]) -> list[Profile]:
        """The profiles that any of them selects."""
        if not selectors:
            return []
        return [p for p in self._by_number.values() if not p.selected.isdisjoint(selectors)]

    def _create(self, reduced: Reduced) -> Profile:
        number = self._free.pop() if self._free else len(self._by_number)
        profile = Profile(number, reduced)
        self._by_reduced[reduced] = self._by_number[number] = profile
        bit = 1 << number
        self._every |= bit
        for key, value in profile.labels.items():
            values = self._values.setdefault(key, {})
            values[value] = values.get(value, 0) | bit
        profile.selected.update(self._index.matching(profile.labels))
        return profile


def answer(selector: Selector, every: int, values: Mapping[str, Mapping[str, int]]) -> int:
    """The bits of what it selects. ``values``: who has each value of each label it asks for."""
    match selector:
        case All():
            return every
        case Has(key):
            return reduce(or_, values.get(key, {}).values(), 0)
        case In(key, wanted):
            have = values.get(key, {})
            return reduce(or_, (have[value] for value in wanted if value in have), 0)
        case Text(key, _, _):
            found = (bits for value, bits in values.get(key, {}).items() if selector.matches({key: value}))
            return reduce(or_, found, 0)
        case Not(operand):
            return every & ~answer(operand, every, values)
        case And(operands):
            return reduce(and_, (answer(o, every, values) for o in operands), every)
        case Or(operands):
            return reduce(or_, (answer(o, every, values) for o in operands), 0)
