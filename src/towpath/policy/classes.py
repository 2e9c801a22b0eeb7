"""Classes of addresses and their numbers, which stay what they are for as long as they can.

A number in the kernel stands at every address of its class. So when traits change, the number goes with the
most addresses: a term that matches all of a class, or none, renumbers nothing, and one that splits it only
the smaller part.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from towpath.model.net import Family
from towpath.model.nft import Key
from towpath.policy.facts import Cohort, Traits

# So many numbers have to be free before the first is given to another class.
LATE = 1024
# What the interval map holds costs this many addresses (a hash element takes microseconds, an interval
# milliseconds).
_ATOM = 100

Watched = int | str
"""What a verdict may depend on: a term's number, or a port's name."""


class Change(NamedTuple):
    """What a number stood for, and what it stands for now; None: nothing."""

    number: int
    before: Traits | None
    after: Traits | None

    def watched(self) -> set[Watched]:
        """On what the two differ."""
        before, after = self.before, self.after
        if before is None or after is None or before.family != after.family:
            return {*watched(before), *watched(after)}
        return {
            *(before.deviant ^ after.deviant),
            *(port.name for port in before.ports ^ after.ports),
        }


def watched(traits: Traits | None) -> Iterator[Watched]:
    """On what addresses of the class differ from those of which nothing is known."""
    if traits is not None:
        yield from traits.deviant
        yield from {port.name for port in traits.ports}


class Seeds:
    """The numbers that addresses and networks have in the kernel, from an earlier process: ``single`` by
    family and address, ``networks`` by the keys of the interval maps.
    """

    def __init__(
        self,
        single: Mapping[Family, Mapping[int, int]],
        networks: Mapping[Key, int],
        keys: Callable[[Cohort], Iterable[Key]],
    ) -> None:
        """``keys`` of a network's remainder, by its atom."""
        self._single, self._networks, self._keys = single, networks, keys
        self.numbers = {*networks.values(), *(n for numbers in single.values() for n in numbers.values())}

    def claims(self, cohort: Cohort) -> Counter[int]:
        """Which numbers the cohort has, and how much that counts."""
        if cohort.atom:
            found = (self._networks.get(key) for key in self._keys(cohort))
            return Counter({number: _ATOM for number in found if number is not None})
        single = self._single[cohort.family]
        return Counter(single[member] for member in cohort.members if member in single)


class Classes:
    """``traits_of``: by number, without 0, which both families' unknown addresses have."""

    def __init__(self) -> None:
        self.traits_of: dict[int, Traits] = {}
        self._number_of: dict[Traits, int] = {}
        self._cohorts_of: dict[Traits, dict[Cohort, None]] = {}
        self._having: dict[Watched, dict[int, None]] = {}
        self._next = 1
        self._free: deque[int] = deque()
        self._seeds: Seeds | None = None

    def seed(self, seeds: Seeds) -> None:
        """What the kernel's maps say, for the next ``settle``: before any class has a number."""
        self._seeds = seeds
        self._next = max(seeds.numbers, default=0) + 1
        self._free.extend(number for number in range(1, self._next) if number not in seeds.numbers)

    def number(self, traits: Traits) -> int:
        """The class with these traits."""
        return self._number_of.get(traits, 0)

    def cohorts(self, traits: Traits) -> Iterable[Cohort]:
        """Those in the class."""
        return self._cohorts_of.get(traits, ())

    def having(self, what: Watched) -> Iterable[int]:
        """The classes that differ in this from unknown addresses."""
        return self._having.get(what, ())

    def settle(self, moves: Iterable[tuple[Cohort, Traits | None]]) -> list[Change]:
        """Give cohorts other traits, None to those that are no more. What that changes of the numbers."""
        claims: Counter[tuple[Traits, int]] = Counter()
        affected: dict[Traits, None] = {}
        arrived: dict[Cohort, None] = {}
        for cohort, traits in moves:
            before = cohort.traits
            if before is not None:
                affected[before] = None
                self._cohorts_of.get(before, {}).pop(cohort, None)
            cohort.traits = traits
            if traits is not None and _known(traits):
                affected[traits] = None
                arrived[cohort] = None
                self._cohorts_of.setdefault(traits, {})[cohort] = None
                if before is not None and (number := self.number(before)):
                    claims[traits, number] += _weight(cohort)
                elif before is None and self._seeds is not None:
                    for number, weight in self._seeds.claims(cohort).items():
                        claims[traits, number] += weight
        for traits in affected:
            if number := self.number(traits):
                claims[traits, number] += sum(
                    _weight(cohort) for cohort in self.cohorts(traits) if cohort not in arrived
                )
        self._seeds = None
        return self._renumber(affected, claims)

    def _renumber(self, affected: dict[Traits, None], claims: Counter[tuple[Traits, int]]) -> list[Change]:
        """The largest claim first."""
        given: dict[Traits, int] = {}
        taken: set[int] = set()
        for (traits, number), weight in sorted(claims.items(), key=lambda claim: -claim[1]):
            if weight and traits not in given and number not in taken:
                given[traits] = number
                taken.add(number)
        old = {number: traits for traits in affected if (number := self.number(traits))}
        for traits in affected:
            if self._cohorts_of.get(traits) and traits not in given:
                given[traits] = self._allocate()
        for traits in affected:
            self._number_of.pop(traits, None)
            if not self._cohorts_of.get(traits):
                self._cohorts_of.pop(traits, None)
        self._number_of.update(given)
        new = {number: traits for traits, number in given.items()}
        changes = [
            Change(number, old.get(number), new.get(number))
            for number in dict.fromkeys((*old, *new))
            if old.get(number) != new.get(number)
        ]
        for change in changes:
            self._record(change)
        return changes

    def _record(self, change: Change) -> None:
        number, before, after = change
        for what in watched(before):
            del self._having[what][number]
            if not self._having[what]:
                del self._having[what]
        for what in watched(after):
            self._having.setdefault(what, {})[number] = None
        if after is not None:
            self.traits_of[number] = after
        else:
            del self.traits_of[number]
            self._free.append(number)

    def _allocate(self) -> int:
        if len(self._free) > LATE:
            return self._free.popleft()
        self._next += 1
        return self._next - 1


def _known(traits: Traits) -> bool:
    return bool(traits.deviant or traits.ports)


def _weight(cohort: Cohort) -> int:
    return _ATOM if cohort.atom else len(cohort.members)
