"""Profiles: what the selectors in use can tell apart of what is labelled, and which of them match each.

A new selector is asked of all profiles at once, a new profile of all selectors.
"""

from collections.abc import Iterable

from towpath.policy.facts import Profile, Used
from towpath.policy.label_bits import LabelBits
from towpath.policy.label_index import LabelIndex
from towpath.policy.places import ones
from towpath.policy.vocabulary import Reduced


class Profiles:
    """All profiles, and the selectors in use. ``changed`` gathers profiles whose ``selected`` did."""

    def __init__(self) -> None:
        self.changed: dict[Profile, None] = {}
        self._index: LabelIndex[Used] = LabelIndex()
        self._by_reduced: dict[Reduced, Profile] = {}
        self._by_number: dict[int, Profile] = {}
        self._free: list[int] = []
        self._bits = LabelBits()

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
        self._bits.remove(profile.number, profile.labels)
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
            for number in ones(self._bits.answer(used.selector)):
                profile = self._by_number[number]
                if used not in profile.selected:
                    profile.selected.add(used)
                    self.changed[profile] = None

    def end(self, selectors: Iterable[Used]) -> None:
        """These are in use no longer. The vocabulary must still have them."""
        for used in selectors:
            self._index.remove(used)
            for number in ones(self._bits.answer(used.selector)):
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
        self._bits.add(number, profile.labels.items())
        profile.selected.update(self._index.matching(profile.labels))
        return profile
