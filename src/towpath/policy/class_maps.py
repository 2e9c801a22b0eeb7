"""What the maps from addresses and networks to classes hold, kept in step with the classes."""

from collections.abc import Iterable
from functools import lru_cache

from towpath.model.net import Family
from towpath.model.nft import Key
from towpath.policy.addresses import Addresses
from towpath.policy.classes import Change, Classes
from towpath.policy.facts import Cohort, Node
from towpath.policy.live import LiveMap


class ClassMaps:
    """Of one family. An address is listed where the interval map would not say the same."""

    def __init__(self, addresses: Addresses, classes: Classes, single: LiveMap, intervals: LiveMap) -> None:
        self._addresses = addresses
        self._classes = classes
        self._single = single
        self._intervals = intervals

    @property
    def family(self) -> Family:
        """Whose maps these are."""
        return self._addresses.family

    def show(self, changes: Iterable[Change]) -> None:
        """Bring the maps up to date. All that ``addresses`` gathered is settled with that."""
        cohorts = dict(self._addresses.changed)
        for change in changes:
            if change.after is not None and change.after.family == self.family:
                cohorts.update(dict.fromkeys(self._classes.cohorts(change.after)))
        nodes = dict(self._addresses.recut)
        nodes.update((cohort.node, None) for cohort in cohorts if cohort.atom)
        for node in self._show_networks(nodes):
            cohorts.update(node.cohorts)
        for cohort in cohorts:
            if not cohort.atom and cohort.members:
                self._show_cohort(cohort)
        cohort_of = self._addresses.cohort_of
        for number, key in self._addresses.moved.items():
            there = cohort_of.get(number)
            self._single.set(key, _data(there.shown if there is not None else None))
        self._addresses.settled()

    def _show_networks(self, nodes: Iterable[Node]) -> list[Node]:
        """Returns those whose class is another one now."""
        shown: list[tuple[Node, tuple[Key, ...], int]] = []
        changed = []
        for node in nodes:
            there = self._addresses.has(node)
            number = self._number(node.atom) if there else 0
            keys = self._addresses.blocks(node) if number else ()
            for key in node.shown:
                self._intervals.set(key, None)
            shown.append((node, keys, number))
            if number != node.atom.shown:
                changed.append(node)
        # Only when all that goes is gone: what one network gives up, another may take.
        for node, keys, number in shown:
            self._intervals.set_all(keys, _data(number))
            node.shown, node.atom.shown = keys, number
        return changed

    def _show_cohort(self, cohort: Cohort) -> None:
        number = self._number(cohort)
        value = number if number != cohort.node.atom.shown else None
        if value != cohort.shown:
            cohort.shown = value
            self._single.set_all(cohort.members.values(), _data(value))

    def _number(self, cohort: Cohort) -> int:
        return self._classes.number(cohort.traits) if cohort.traits is not None else 0


@lru_cache(1 << 16)
def _data(number: int | None) -> Key | None:
    return None if number is None else (number,)
