"""Endpoints and network sets: their labels reduced to profiles, their addresses and networks put in place."""

from collections.abc import Iterable, Set

from towpath.model.net import Family
from towpath.policy.addresses import Addresses
from towpath.policy.facts import NetGroup, Profile, Used
from towpath.policy.ir import Endpoint, NetworkSet
from towpath.policy.labelled import Holders, Labelled
from towpath.policy.profiles import Profiles
from towpath.policy.terms import Settled, collapsed
from towpath.policy.vocabulary import Reduced, Vocabulary


class Population:
    """Events are noted (``put``, ``drop``) and followed in ``settle``."""

    def __init__(self, vocabulary: Vocabulary, addresses: dict[Family, Addresses]) -> None:
        self._vocabulary = vocabulary
        self._addresses = addresses
        self._profiles = Profiles()
        self._objects: dict[str, Labelled] = {}
        self._pending: dict[str, Labelled | None] = {}
        self._holders = Holders(self._objects)
        self._profile_of: dict[str, Profile] = {}
        self._group_of: dict[str, NetGroup] = {}
        self._placed: dict[NetGroup, None] = {}

    @property
    def pending(self) -> Set[str]:
        """The names of what has changed."""
        return self._pending.keys()

    def put(self, one: Labelled) -> None:
        """New, or instead of what has its name."""
        self._pending[one.name] = one

    def drop(self, name: str) -> None:
        """Gone."""
        self._pending[name] = None

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of this name, as it was noted last."""
        one = self._pending[name] if name in self._pending else self._objects.get(name)
        return one if isinstance(one, Endpoint) else None

    def settle(self, settled: Settled) -> None:
        """Follow the events, and other terms in use."""
        gone, new = settled.gone_selectors, settled.new_selectors
        self._profiles.end(gone)
        for used in gone:
            self._vocabulary.remove(used.selector)
        for used in new:
            self._vocabulary.add(used.selector)
        self._profiles.expect(new)
        self._relabel()
        for name, one in self._pending.items():
            self._follow(name, one)
        self._pending = {}
        self._profiles.begin(new)
        for group in settled.gone_groups:
            self._displace(group)
        for group in settled.new_groups:
            self._place(group)
        self._touch(settled)

    def _relabel(self) -> None:
        """Whoever has a label that is reduced otherwise now."""
        asked, self._vocabulary.changed = self._vocabulary.changed, set()
        if not (asked and self._objects):
            return
        for name in self._holders.of(asked):
            if name not in self._pending:
                one, before = self._objects[name], self._profile_of[name]
                reduced = self._reduce(one)
                if reduced != before.reduced:
                    self._change_profile(one, before, self._profiles.obtain(reduced))

    def _follow(self, name: str, one: Labelled | None) -> None:
        before = self._objects.get(name)
        if before is None:
            if one is not None:
                self._add(one)
        elif one is None:
            self._remove(before)
        elif _same_place(before, one):
            self._holders.gone(before)
            self._objects[name] = one
            self._holders.come(one)
            old = self._profile_of[name]
            reduced = self._reduce(one)
            if reduced != old.reduced:
                self._change_profile(one, old, self._profiles.obtain(reduced))
        else:
            self._remove(before)
            self._add(one)

    def _add(self, one: Labelled) -> None:
        profile = self._profile_of[one.name] = self._profiles.obtain(self._reduce(one))
        self._objects[one.name] = one
        self._holders.come(one)
        if isinstance(one, Endpoint):
            for address in one.addresses:
                self._addresses[4 if address.version == 4 else 6].add_owner(address, profile)
        else:
            blocks = {family: collapsed(one.nets, family) for family in self._addresses}
            self._group_of[one.name] = self._attach(NetGroup(blocks, profile))

    def _remove(self, one: Labelled) -> None:
        self._holders.gone(one)
        del self._objects[one.name]
        profile = self._profile_of.pop(one.name)
        if isinstance(one, Endpoint):
            for address in one.addresses:
                self._addresses[4 if address.version == 4 else 6].remove_owner(address, profile)
        else:
            group = self._group_of.pop(one.name)
            del profile.groups[group]
            self._displace(group)
        self._profiles.release(profile)

    def _change_profile(self, one: Labelled, before: Profile, after: Profile) -> None:
        self._profile_of[one.name] = after
        if isinstance(one, Endpoint):
            for address in one.addresses:
                self._addresses[4 if address.version == 4 else 6].change_owner(address, before, after)
        else:
            group = self._group_of[one.name]
            del before.groups[group]
            group.profile = after
            self._attach(group)
        self._profiles.release(before)

    def _attach(self, group: NetGroup) -> NetGroup:
        """A network set's group has its profile: what selects that, selects the networks."""
        if group.profile is not None:
            group.profile.groups[group] = None
            self._profiles.changed[group.profile] = None
        return group

    def _reduce(self, one: Labelled) -> Reduced:
        return self._vocabulary.reduce(one.labels, one.ports if isinstance(one, Endpoint) else ())

    def _place(self, group: NetGroup) -> None:
        self._placed[group] = None
        for addresses in self._addresses.values():
            addresses.place(group)

    def _displace(self, group: NetGroup) -> None:
        if group in self._placed:
            del self._placed[group]
            for addresses in self._addresses.values():
                addresses.displace(group)

    def _touch(self, settled: Settled) -> None:
        """Whatever may match other terms than before, its membership in groups and profiles apart."""
        selectors: set[Used] = set()
        groups: dict[NetGroup, None] = {}
        for term in (*settled.new_terms, *settled.gone_terms):
            facts = (term.not_selector, term.not_nets) if term.ambient else (term.selector or term.nets,)
            for fact in facts:
                if isinstance(fact, Used):
                    selectors.add(fact)
                elif fact is not None:
                    groups[fact] = None
        profiles = {**self._profiles.changed, **dict.fromkeys(self._profiles.selecting(selectors))}
        self._profiles.changed = {}
        for profile in profiles:
            for cohort in profile.cohorts:
                self._addresses[cohort.family].changed[cohort] = None
            self._settle_sets(profile.groups)
            groups.update(profile.groups)
        for group in groups:
            if group in self._placed:
                for addresses in self._addresses.values():
                    addresses.touch_group(group)

    def _settle_sets(self, groups: Iterable[NetGroup]) -> None:
        """Network sets are in place if a selector in use selects them."""
        for group in groups:
            selected = group.profile is not None and bool(group.profile.selected)
            if selected and group not in self._placed:
                self._place(group)
            elif not selected:
                self._displace(group)


def _same_place(one: Labelled, other: Labelled) -> bool:
    """Whether they have the same addresses or networks."""
    match one, other:
        case Endpoint(), Endpoint():
            return one.addresses == other.addresses
        case NetworkSet(), NetworkSet():
            return one.nets == other.nets
    return False
