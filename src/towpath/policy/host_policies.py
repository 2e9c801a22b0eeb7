"""This node's host endpoints: which policies each is asked by, where Calico asks, hence chains by interface.

A pod's own side is an address of the pod's. An interface's own side is any address: rules of what passes
through ask where it goes to as well as where it comes from, and the node may have addresses nobody has told
of. So where rules ask of the own side, its class is looked up first, and leads to a subject for that class.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from typing import NamedTuple

from towpath.model.nft import NftSet
from towpath.model.policy import (
    DST_CLASS,
    HOST_FORWARD_IN,
    HOST_FORWARD_OUT,
    HOST_IN,
    HOST_OUT,
    HOST_PRE_DNAT,
    HOST_RAW_IN,
    HOST_RAW_OUT,
    SRC_CLASS,
)
from towpath.policy.cells import Own
from towpath.policy.classes import Change, Classes
from towpath.policy.clauses import PolicyRules
from towpath.policy.conn_chains import digest
from towpath.policy.conn_rules import GOTO_DENIED, RETURN, final
from towpath.policy.facts import Term, Traits
from towpath.policy.host_places import ALL_INTERFACES
from towpath.policy.ir import Aspect, Direction, Endpoint
from towpath.policy.live import VERDICT, LiveMap, LiveProgram
from towpath.policy.policy_book import PolicyBook, PolicyKey
from towpath.policy.subjects import Slot, Subject, SubjectKey, Subjects
from towpath.policy.terms import matches


class _Place(NamedTuple):
    """Where interfaces are told apart."""

    aspect: Aspect
    direction: Direction
    chain: str


_PLACES = (
    _Place("local", "ingress", HOST_IN),
    _Place("local", "egress", HOST_OUT),
    _Place("forwarded", "ingress", HOST_FORWARD_IN),
    _Place("forwarded", "egress", HOST_FORWARD_OUT),
    _Place("untracked", "ingress", HOST_RAW_IN),
    _Place("untracked", "egress", HOST_RAW_OUT),
    _Place("pre-dnat", "ingress", HOST_PRE_DNAT),
)


CHAINS: Mapping[tuple[Aspect, Direction], str] = {(p.aspect, p.direction): p.chain for p in _PLACES}
"""By what is asked, where it is."""


class _Facet:
    """One endpoint in one place.

    ``terms`` and ``names``: what the rules ask of the own side. ``unknown``: what counts of it if its address
    is not known; ``owns``: what does otherwise, by class. ``touched``: classes of which that has changed.
    """

    __slots__ = (
        "map",
        "name",
        "names",
        "owns",
        "place",
        "rules",
        "slots",
        "terms",
        "touched",
        "unknown",
        "uses",
        "verdict",
    )

    def __init__(self, endpoint: str, place: _Place) -> None:
        self.place = place
        self.name = f"ho-{digest(endpoint, place.chain)}"
        self.rules: frozenset[PolicyRules] = frozenset()
        self.terms: tuple[Term, ...] = ()
        self.names: frozenset[str] = frozenset()
        self.unknown = Own()
        self.owns: dict[int, Own] = {}
        self.uses: Counter[Own] = Counter()
        self.slots: dict[Slot, None] = {}
        self.touched: dict[int, None] = {}
        self.map: LiveMap | None = None
        self.verdict = ""

    def prepare(self, rules: frozenset[PolicyRules]) -> None:
        """Take the rules as they are now."""
        self.rules = rules
        self.terms = tuple(dict.fromkeys(term for one in rules for term in one.own_terms))
        self.names = frozenset[str]().union(*(one.own_names for one in rules))

    def asks_own(self) -> bool:
        """Whether the own side's address matters."""
        return bool(self.terms or self.names)

    def classify_anew(self, known: Mapping[int, Traits]) -> None:
        """All classes."""
        self.touched.update(dict.fromkeys(self.owns))
        self.owns, self.uses = {}, Counter()
        self.unknown = Own(frozenset(term for term in self.terms if term.ambient))
        if self.asks_own():
            for number, traits in known.items():
                self.classify(number, traits)

    def own(self, traits: Traits | None) -> Own:
        """What counts of an address with these traits; None: nothing is known of it."""
        if traits is None or not self.asks_own():
            return self.unknown
        return Own(
            frozenset(term for term in self.terms if matches(term, traits)),
            frozenset(port for port in traits.ports if port.name in self.names),
        )

    def classify(self, number: int, traits: Traits | None) -> None:
        """What counts of an address of this class; None: there is no such class any more."""
        before = self.owns.pop(number, None)
        own = self.own(traits) if traits is not None else None
        if own is not None and own != self.unknown:
            self.owns[number] = own
            self.uses[own] += 1
        if before is not None:
            self.uses[before] -= 1
        if self.owns.get(number) != before:
            self.touched[number] = None


class _Host:
    """A host endpoint of this node."""

    __slots__ = ("endpoint", "facets", "keys")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.keys: frozenset[PolicyKey] = frozenset()
        self.facets = {place: _Facet(endpoint.name, place) for place in _PLACES}


class HostPolicies:
    """As ``LocalPolicies``, in two steps. ``subjects`` by where they are asked."""

    def __init__(
        self,
        book: PolicyBook,
        subjects: Mapping[Aspect, Subjects],
        classes: Classes,
        program: LiveProgram,
    ) -> None:
        self._book = book
        self._subjects = subjects
        self._classes = classes
        self._program = program
        self._endpoint_at: dict[str, str] = {}
        self._hosts: dict[str, _Host] = {}
        self._stale: dict[str, None] = {}  # endpoints whose subjects are to be worked out anew
        self._gone: list[_Host] = []
        self._replugged = False

    def set_interfaces(self, interfaces: Mapping[str, str]) -> None:
        """Which endpoint stands at which interface, ``*`` for all others."""
        if interfaces != self._endpoint_at:
            self._endpoint_at = dict(interfaces)
            self._replugged = True

    def apply(self, endpoint: Callable[[str], Endpoint | None], changed: Set[str]) -> None:
        """First step: which policies apply."""
        if not self._endpoint_at and not self._hosts:
            return
        policies = tuple(self._book.changed)
        touched = dict.fromkeys(policies)
        here = set(self._endpoint_at.values())
        for name in sorted(here | self._hosts.keys()):
            found = endpoint(name) if name in here else None
            if name in changed or (found is None) != (name not in self._hosts):
                self._renew(name, found, touched)
            elif (host := self._hosts.get(name)) is not None and policies:
                labels = host.endpoint.labels
                selecting = {p for p in policies if self._book.selector(p, host=True).matches(labels)}
                self._select(host, host.keys - frozenset(policies) | selecting, touched)
        self._book.refresh(touched)
        for name, host in self._hosts.items():
            if name in self._stale or not touched.keys().isdisjoint(host.keys):
                self._prepare(host)
        self._book.refreshed()

    def judge(self, changes: Iterable[Change]) -> None:
        """Second step: the subjects, and where the packets of each interface go."""
        moves: dict[Aspect, dict[Slot, SubjectKey | None]] = {place.aspect: {} for place in _PLACES}
        gone = [facet for host in self._gone for facet in host.facets.values()]
        other = self._reclassified(list(changes))
        for facet in gone:
            moves[facet.place.aspect].update(dict.fromkeys(facet.slots))
        for endpoint, facet in other:
            self._reslot(endpoint, facet, moves[facet.place.aspect])
        for aspect, moved in moves.items():
            self._subjects[aspect].assign(moved)
        for endpoint, facet in other:
            self._write(endpoint, facet)
        for facet in gone:
            self._unwrite(facet)
        if self._stale or self._gone or self._replugged:
            self._dispatch()
        self._stale, self._gone, self._replugged = {}, [], False

    def standing_at(self, interface: str) -> str | None:
        """The endpoint there. None: nobody's policies are asked."""
        general = self._endpoint_at.get(ALL_INTERFACES) if interface != "lo" else None
        name = self._endpoint_at.get(interface, general)
        return name if name in self._hosts else None

    def judging(self, name: str, aspect: Aspect, direction: Direction, own: Traits | None) -> Subject | bool:
        """What judges there, the own side's address having these traits; a verdict where nothing does."""
        host = self._hosts[name]
        place = next(p for p in _PLACES if (p.aspect, p.direction) == (aspect, direction))
        facet = host.facets[place]
        if not facet.rules:
            return aspect != "local" or host.endpoint.unmatched == "allow"
        return self._subjects[aspect].of[Slot(name, direction, None, aspect, facet.own(own))]

    def applied(self, name: str, aspect: Aspect) -> frozenset[PolicyKey]:
        """The policies that it asks there."""
        found = ((key, self._book.policies[key]) for key in self._hosts[name].keys)
        return frozenset(key for key, policy in found if aspect in policy.aspects)

    # Which policies.

    def _renew(self, name: str, found: Endpoint | None, touched: dict[PolicyKey, None]) -> None:
        host = self._hosts.get(name)
        if found is None:
            if host is not None:
                self._select(host, frozenset(), touched)
                self._gone.append(self._hosts.pop(name))
            return
        if host is None:
            host = self._hosts[name] = _Host(found)
        host.endpoint = found
        self._stale[name] = None
        self._select(host, self._book.selecting(found.labels, host=True), touched)

    def _select(self, host: _Host, keys: frozenset[PolicyKey], touched: dict[PolicyKey, None]) -> None:
        touched.update(dict.fromkeys(self._book.use(keys - host.keys, 1)))
        touched.update(dict.fromkeys(self._book.use(host.keys - keys, -1)))
        if keys != host.keys:
            host.keys = keys
            self._stale[host.endpoint.name] = None

    def _prepare(self, host: _Host) -> None:
        """Take the rules as they are now."""
        self._stale[host.endpoint.name] = None
        aspects = {key: self._book.policies[key].aspects for key in host.keys}
        for place, facet in host.facets.items():
            asked = [key for key, found in aspects.items() if place.aspect in found]
            ready = (self._book.ready(key, place.direction) for key in asked)
            rules = {one for one in ready if one is not None}
            # A policy that says nothing counts only where no other of its tier says anything.
            spoken = {one.tier.name for one in rules if one.clauses}
            facet.prepare(frozenset(one for one in rules if one.clauses or one.tier.name not in spoken))

    # Who is judged how.

    def _reclassified(self, changes: list[Change]) -> list[tuple[Endpoint, _Facet]]:
        """Facets with other rules, or with own sides that are of another kind now."""
        found = []
        for name, host in self._hosts.items():
            for facet in host.facets.values():
                if name in self._stale:
                    facet.classify_anew(self._classes.traits_of)
                elif facet.asks_own():
                    for change in changes:
                        facet.classify(change.number, change.after)
                if name in self._stale or facet.touched:
                    found.append((host.endpoint, facet))
        return found

    @staticmethod
    def _reslot(endpoint: Endpoint, facet: _Facet, moves: dict[Slot, SubjectKey | None]) -> None:
        place = facet.place
        denies = place.aspect == "local" and endpoint.unmatched == "deny"
        undecided = place.aspect in ("untracked", "pre-dnat")
        keys: dict[Slot, SubjectKey] = {}
        if facet.rules:
            for own in (facet.unknown, *(own for own, uses in facet.uses.items() if uses)):
                slot = Slot(endpoint.name, place.direction, None, place.aspect, own)
                keys[slot] = SubjectKey(place.direction, facet.rules, denies, own, undecided)
        moves.update({**dict.fromkeys(facet.slots), **keys})
        facet.slots = dict.fromkeys(keys)

    # What the kernel is told.

    def _write(self, endpoint: Endpoint, facet: _Facet) -> None:
        place = facet.place
        if not facet.rules:
            self._unwrite(facet)
            denies = place.aspect == "local" and endpoint.unmatched == "deny"
            facet.verdict = GOTO_DENIED if denies else RETURN
            return
        subjects = self._subjects[place.aspect].of
        verdicts = {slot.own: subjects[slot].verdict for slot in facet.slots}
        default = verdicts[facet.unknown]
        if not facet.asks_own():
            self._unwrite(facet)
            facet.verdict = default
            return
        if facet.map is None:
            facet.map = self._program.add_map(NftSet(name=facet.name, key=("classid",), data=VERDICT))
        for number in facet.touched:
            own = facet.owns.get(number)
            facet.map.set((number,), None if own is None else (verdicts[own],))
        facet.touched = {}
        side = DST_CLASS if place.direction == "ingress" else SRC_CLASS
        rules = (f"jump {side}", f"meta priority vmap @{facet.name}", final(default))
        self._program.set_chain(facet.name, rules)
        facet.verdict = f"goto {facet.name}"

    def _unwrite(self, facet: _Facet) -> None:
        facet.touched = {}
        if facet.map is not None:
            self._program.set_chain(facet.name, None)
            self._program.remove_map(facet.name)
            facet.map = None

    def _dispatch(self) -> None:
        """Interfaces that are named come first; what no one stands for, and loopback, is left alone."""
        named = {
            interface: self._hosts[name]
            for interface, name in sorted(self._endpoint_at.items())
            if name in self._hosts
        }
        general = named.pop(ALL_INTERFACES, None)
        for place in _PLACES:
            hosts = [*named.values(), *([general] if general else [])]
            asked = any(place.aspect == "local" or host.facets[place].rules for host in hosts)
            rules: list[str] = []
            device = "iifname" if place.direction == "ingress" else "oifname"
            for interface, host in named.items():
                rules += _led(f'{device} "{interface}"', host.facets[place])
            if general is not None:
                rules += _led(f'{device} != "lo"', general.facets[place])
            self._program.set_chain(place.chain, tuple(rules) if asked else None)


def _led(match: str, facet: _Facet) -> list[str]:
    """Packets that belong to no connection are dropped wherever an endpoint asks, as in Calico."""
    invalid = final(GOTO_DENIED, f"{match} ct state invalid")
    if facet.place.aspect == "untracked" or (facet.place.aspect != "local" and not facet.rules):
        return [final(facet.verdict, match)]
    return [invalid, final(facet.verdict, match)]
