"""Peers as terms, shared by all rules that say the same, and which of them an address matches."""

from collections.abc import Iterable
from typing import NamedTuple

from towpath.model.net import Family, Net
from towpath.policy.facts import Block, Fact, NetGroup, Profile, Term, Traits, Used
from towpath.policy.ir import NamedPort, Peer
from towpath.policy.selector import Selector

BITS: dict[Family, int] = {4: 32, 6: 128}


class Asked(NamedTuple):
    """A peer as far as one family goes. ``nets`` None: any address."""

    selector: Selector | None
    not_selector: Selector | None
    nets: tuple[Block, ...] | None
    not_nets: tuple[Block, ...]
    family: Family | None  # None where no network is named


ANYONE = Asked(None, None, None, (), None)


def narrowed(peer: Peer, family: Family) -> Asked | None:
    """What the peer asks of this family's addresses; None if none can match. Its service is not looked at."""
    if peer.nets is None and not peer.not_nets:
        return Asked(peer.selector, peer.not_selector, None, (), None)
    nets = None if peer.nets is None else collapsed(peer.nets, family)
    not_nets = collapsed(peer.not_nets, family)
    whole = ((0, 0),)
    if nets == () or not_nets == whole:
        return None
    if nets == whole:
        nets = None
    named = nets is not None or not_nets
    return Asked(peer.selector, peer.not_selector, nets, not_nets, family if named else None)


def collapsed(nets: Iterable[Net], family: Family) -> tuple[Block, ...]:
    """Those of the family, sorted, none inside another; two halves are a whole."""
    bits = BITS[family]
    found: list[Block] = []
    for first, length in sorted(
        {(int(net.network_address), net.prefixlen) for net in nets if net.version == family}
    ):
        if found and first >> bits - found[-1][1] == found[-1][0] >> bits - found[-1][1]:
            continue
        found.append((first, length))
        while len(found) > 1 and _halves(found[-2], found[-1], bits):
            found.pop()
            found[-1] = (found[-1][0], found[-1][1] - 1)
    return tuple(found)


def _halves(one: Block, other: Block, bits: int) -> bool:
    above = bits - one[1] + 1
    return one[1] == other[1] > 0 and one[0] >> above == other[0] >> above


class Terms:
    """Terms in use, with the selectors and networks they ask for. Each acquisition is released once.

    ``settle`` is called when all that begins is acquired and all that ends is released. It says what is new
    and what is gone, so that what one rule gives up and another takes has never been away.
    """

    def __init__(self) -> None:
        self._terms: dict[Asked, Term] = {}
        self._keys: dict[int, Asked] = {}
        self._selectors: dict[Selector, Used] = {}
        self._groups: dict[tuple[Family, tuple[Block, ...]], NetGroup] = {}
        self._free: list[int] = []
        self._fresh: dict[Term, None] = {}
        self._idle: dict[Term, None] = {}

    def acquire(self, asked: Asked) -> Term:
        """The term of this peer."""
        term = self._terms.get(asked)
        if term is None:
            number = self._free.pop() if self._free else len(self._terms)
            term = self._terms[asked] = Term(number)
            self._keys[number] = asked
            self._fresh[term] = None
        term.uses += 1
        return term

    def release(self, term: Term) -> None:
        """One use less."""
        term.uses -= 1
        if not term.uses:
            self._idle[term] = None

    def settle(self) -> "Settled":
        """What has come and gone since the last call."""
        settled = Settled([], [], [], [], [], [])
        for term in self._idle:
            if term.uses:
                continue
            asked = self._keys.pop(term.number)
            del self._terms[asked]
            self._free.append(term.number)
            if term not in self._fresh:
                settled.gone_terms.append(term)
        for term in self._fresh:
            if term.uses:
                self._define(term, settled)
                settled.new_terms.append(term)
        for term in settled.gone_terms:
            self._forget(term, settled)
        self._fresh, self._idle = {}, {}
        return settled

    def _define(self, term: Term, settled: "Settled") -> None:
        asked = self._keys[term.number]
        term.ambient = asked.selector is None and asked.nets is None
        if asked.selector is not None:
            term.selector = self._used(asked.selector, settled)
            term.selector.needing[term] = None
        if asked.not_selector is not None:
            term.not_selector = self._used(asked.not_selector, settled)
        if asked.nets is not None and asked.family is not None:
            term.nets = self._group(asked.family, asked.nets, settled)
            if term.selector is None:
                term.nets.needing[term] = None
        if asked.not_nets and asked.family is not None:
            term.not_nets = self._group(asked.family, asked.not_nets, settled)
        if term.ambient:
            facts: tuple[Fact | None, ...] = (term.not_selector, term.not_nets)
            for fact in facts:
                if fact is not None:
                    fact.excluding[term] = None

    def _forget(self, term: Term, settled: "Settled") -> None:
        for used in (term.selector, term.not_selector):
            if used is not None:
                used.needing.pop(term, None)
                used.excluding.pop(term, None)
                used.uses -= 1
                if not used.uses:
                    del self._selectors[used.selector]
                    settled.gone_selectors.append(used)
        for group in (term.nets, term.not_nets):
            if group is not None:
                group.needing.pop(term, None)
                group.excluding.pop(term, None)
                group.uses -= 1
                if not group.uses:
                    ((family, blocks),) = group.blocks.items()
                    del self._groups[family, blocks]
                    settled.gone_groups.append(group)

    def _used(self, selector: Selector, settled: "Settled") -> Used:
        used = self._selectors.get(selector)
        if used is None:
            used = self._selectors[selector] = Used(selector)
            settled.new_selectors.append(used)
        used.uses += 1
        return used

    def _group(self, family: Family, blocks: tuple[Block, ...], settled: "Settled") -> NetGroup:
        group = self._groups.get((family, blocks))
        if group is None:
            group = self._groups[family, blocks] = NetGroup({family: blocks})
            settled.new_groups.append(group)
        group.uses += 1
        return group


class Settled(NamedTuple):
    """What has come into use and what has gone out of it. A gone term still says what it asked for."""

    new_terms: list[Term]
    gone_terms: list[Term]
    new_selectors: list[Used]
    gone_selectors: list[Used]
    new_groups: list[NetGroup]
    gone_groups: list[NetGroup]


def traits_of(family: Family, profiles: tuple[Profile, ...], groups: Iterable[NetGroup]) -> Traits:
    """Those of an address that the owners of ``profiles`` have, and that lies in all of ``groups``."""
    groups = set(groups)
    selected: set[Used] = set()
    ports: frozenset[NamedPort] = frozenset()
    for profile in profiles:
        selected |= profile.selected
        ports |= profile.ports
    for group in groups:
        if group.profile is not None:
            selected |= group.profile.selected
    deviant: set[int] = set()
    facts: tuple[Fact, ...] = (*selected, *groups)
    for fact in facts:
        deviant.update(term.number for term in fact.excluding)
        deviant.update(term.number for term in fact.needing if _holds(term, selected, groups))
    return Traits(family, frozenset(deviant), ports)


def _holds(term: Term, selected: set[Used], groups: set[NetGroup]) -> bool:
    """Whether all else it asks for is so."""
    return (
        (term.nets is None or term.nets in groups)
        and term.not_selector not in selected
        and term.not_nets not in groups
    )


def matches(term: Term, traits: Traits) -> bool:
    """Whether addresses with these traits match."""
    return (term.number in traits.deviant) != term.ambient
