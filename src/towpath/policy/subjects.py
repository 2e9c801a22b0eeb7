"""Subjects: what pods with the same policies share, a chain for a direction with its verdicts by class."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from towpath.model.net import Addr, Family
from towpath.model.nft import NftSet
from towpath.model.policy import DST_CLASS, SRC_CLASS
from towpath.policy.cells import Decisions, Own
from towpath.policy.classes import Change, Classes, Watched
from towpath.policy.clauses import PolicyRules
from towpath.policy.conn_chains import ConnectionChains
from towpath.policy.conn_rules import UNDECIDED, Outcome, final
from towpath.policy.connections import ALL, NOTHING
from towpath.policy.facts import Traits
from towpath.policy.ir import Aspect, Direction
from towpath.policy.live import VERDICT, LiveMap, LiveProgram

_FAMILIES: tuple[Family, ...] = (4, 6)


class SubjectKey(NamedTuple):
    """What makes a subject. ``denies``: what no tier decides. ``undecided`` instead, if that is for others to
    judge, as is then what a tier's default would deny.
    """

    direction: Direction
    policies: frozenset[PolicyRules]
    denies: bool
    own: Own = Own()
    undecided: bool = False


class Slot(NamedTuple):
    """Who is judged: a local endpoint, by one of its addresses if these are not all judged the same; a host
    endpoint, where it is asked, by what is known of the own side's address.
    """

    endpoint: str
    direction: Direction
    address: Addr | None = None
    aspect: Aspect = "local"
    own: Own | None = None


class Subject:
    """``rows``: the classes that are not treated as unknown addresses are."""

    __slots__ = ("chain", "decisions", "defaults", "key", "map", "rows", "users")

    def __init__(self, key: SubjectKey, chain: str) -> None:
        self.key = key
        self.chain = chain
        self.users = 0
        self.rows: dict[int, Outcome] = {}
        self.map: LiveMap | None = None
        self.decisions = _decisions(key)
        self.defaults: dict[Family, Outcome] = {}

    @property
    def verdict(self) -> str:
        """How packets get here."""
        return f"goto {self.chain}"


class Subjects:
    """All of them, by who is judged. A subject whose users all get another key together keeps its chain.

    ``letter`` begins their chains' names: those that share a program have different ones.
    """

    def __init__(
        self, classes: Classes, chains: ConnectionChains, program: LiveProgram, letter: str = "p"
    ) -> None:
        self._letter = letter
        self.of: dict[Slot, Subject] = {}
        self._classes = classes
        self._chains = chains
        self._program = program
        self._by_key: dict[SubjectKey, Subject] = {}
        self._names: set[str] = set()
        self.seeds: dict[Slot, str] = {}
        """Chains by which they were judged in an earlier process, to be called the same."""
        self._watching: dict[Watched, dict[Subject, None]] = {}

    def assign(self, moves: Mapping[Slot, SubjectKey | None]) -> None:
        """Give slots other keys, None to those that are no more."""
        left: dict[Subject, None] = {}
        wanted: dict[SubjectKey, list[Slot]] = {}
        for slot, key in moves.items():
            old = self.of.get(slot)
            if old is not None:
                old.users -= 1
                left[old] = None
            if key is not None:
                wanted.setdefault(key, []).append(slot)
        taken = {subject for key in wanted if (subject := self._by_key.get(key)) is not None}
        for key, slots in wanted.items():
            subject = self._by_key.get(key)
            if subject is None:
                subject = self._heir(key, slots, taken)
                taken.add(subject)
            for slot in slots:
                self.of[slot] = subject
            subject.users += len(slots)
        for slot, key in moves.items():
            if key is None:
                self.of.pop(slot, None)
        for subject in left:
            if not subject.users and subject not in taken:
                self._dispose(subject)

    def follow(self, changes: Iterable[Change]) -> None:
        """Classes have changed."""
        for change in changes:
            subjects: dict[Subject, None] = {}
            for what in change.watched():
                subjects.update(self._watching.get(what, ()))
            for subject in subjects:
                self._set_row(subject, change.number, change.after)

    def _heir(self, key: SubjectKey, slots: list[Slot], taken: set[Subject]) -> Subject:
        """The subject that most of the slots had, if nobody else needs it; else a new one."""
        candidates = Counter(
            old
            for slot in slots
            if (old := self.of.get(slot)) is not None and not old.users and old not in taken
        )
        if candidates:
            subject = candidates.most_common(1)[0][0]
            before = subject.key
            del self._by_key[before]
        else:
            subject, before = self._create(key, slots), key._replace(policies=frozenset())
        subject.key = key
        self._by_key[key] = subject
        if before[2:] != key[2:]:
            self._watch(subject, subject.decisions.watched(), watching=False)
            subject.decisions = _decisions(key)
            before = before._replace(policies=frozenset())
        self._revise(subject, before.policies)
        return subject

    def _create(self, key: SubjectKey, slots: list[Slot]) -> Subject:
        for slot in slots if self.seeds else ():
            known = self.seeds.get(slot) or self.seeds.get(slot._replace(address=None))
            if known is not None and known not in self._names:
                self._names.add(known)
                return Subject(key, known)
        mark = sum(rules.mark for rules in key.policies) % (1 << 64)
        name = f"{self._letter}{key.direction[0]}-{mark:016x}"
        while name in self._names:
            name += "-"
        self._names.add(name)
        return Subject(key, name)

    def _dispose(self, subject: Subject) -> None:
        del self._by_key[subject.key]
        self._names.discard(subject.chain)
        self._watch(subject, subject.decisions.watched(), watching=False)
        for outcome in (*subject.rows.values(), *subject.defaults.values()):
            self._chains.release(outcome)
        self._program.set_chain(subject.chain, None)
        if subject.map is not None:
            self._program.remove_map(subject.chain)

    def _revise(self, subject: Subject, before: frozenset[PolicyRules]) -> None:
        """Other policies than before: new verdicts where they may matter."""
        after = subject.key.policies
        revision = subject.decisions.replace(before - after, tuple(after - before))
        watched = subject.decisions.watched()
        changed = revision.changed
        for what in revision.touched:
            self._watch(subject, (what,), watching=subject.decisions.watches(what))
        numbers: dict[int, None] = {}
        if revision.everything or not subject.defaults:
            numbers.update(dict.fromkeys(subject.rows))
            changed = set(watched)
            self._set_defaults(subject)
        for what in changed:
            numbers.update(dict.fromkeys(self._classes.having(what)))
        if watched and subject.map is None:
            decl = NftSet(name=subject.chain, key=("classid",), data=VERDICT, counter=True)
            subject.map = self._program.add_map(decl)
        for number in numbers:
            self._set_row(subject, number, self._classes.traits_of.get(number))
        if not watched and subject.map is not None:
            self._program.remove_map(subject.chain)
            subject.map = None
        self._program.set_chain(subject.chain, self._rules(subject))

    def _set_defaults(self, subject: Subject) -> None:
        old = subject.defaults
        subject.defaults = {family: subject.decisions.outcome(family) for family in _FAMILIES}
        for outcome in subject.defaults.values():
            self._chains.acquire(outcome)
        for outcome in old.values():
            self._chains.release(outcome)

    def _set_row(self, subject: Subject, number: int, traits: Traits | None) -> None:
        outcome: Outcome | None = None
        if traits is not None:
            outcome = subject.decisions.outcome(traits.family, traits)
            if outcome == subject.defaults[traits.family]:
                outcome = None
        old = subject.rows.get(number)
        if subject.map is None or old == outcome:
            return
        if outcome is None:
            del subject.rows[number]
            subject.map.set((number,), None)
        else:
            subject.rows[number] = outcome
            subject.map.set((number,), (self._chains.acquire(outcome),))
        if old is not None:
            self._chains.release(old)

    def _rules(self, subject: Subject) -> tuple[str, ...]:
        rules = []
        if subject.map is not None:
            peer = SRC_CLASS if subject.key.direction == "ingress" else DST_CLASS
            rules += [f"jump {peer}", f"meta priority vmap @{subject.chain}"]
        four, six = (self._chains.verdict(subject.defaults[family]) for family in _FAMILIES)
        if four != six:
            rules.append(final(four, "meta nfproto ipv4"))
        return (*rules, final(six))

    def _watch(self, subject: Subject, what: Iterable[Watched], *, watching: bool) -> None:
        for one in what:
            if watching:
                self._watching.setdefault(one, {})[subject] = None
            elif one in self._watching:
                self._watching[one].pop(subject, None)
                if not self._watching[one]:
                    del self._watching[one]


def _decisions(key: SubjectKey) -> Decisions:
    if key.undecided:
        return Decisions(UNDECIDED, key.own, lenient=True)
    return Decisions(NOTHING if key.denies else ALL, key.own)
