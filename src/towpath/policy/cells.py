"""What a subject's policies make of one class of peers: the ordered rules that concern it, evaluated once.

The rules of all policies are cut into runs: neighbours of one tier and one action. Within a run order does
not matter, so that it is one set of connections, most of which is the same for every class.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from towpath.model.net import Family
from towpath.policy.classes import Watched
from towpath.policy.clauses import Clause, PolicyRules, Ports
from towpath.policy.conn_rules import Outcome
from towpath.policy.connections import Connections
from towpath.policy.facts import Term, Traits
from towpath.policy.ir import Action, Tier
from towpath.policy.verdicts import Step, decided, united

_NO_PORTS: Ports = frozenset()
_NONE: frozenset[int] = frozenset()
_MEMO = 4096  # so many answers are kept


class Own(NamedTuple):
    """What counts of the subject's own side: the terms that its address matches, its named ports."""

    terms: frozenset[Term] = frozenset()
    ports: Ports = frozenset()


class _Run(NamedTuple):
    action: Action
    tier: int


class Decisions:
    """The policies that apply to a subject in one direction, and its own side.

    ``watched``: on what of a class the answer may depend; all others are answered as unknown addresses are.
    """

    def __init__(self, unmatched: Connections, own: Own) -> None:
        self.unmatched = unmatched
        self.own = own
        self.watched: Counter[Watched] = Counter()
        self._policies: list[PolicyRules] = []
        self._tiers: list[Tier] = []
        self._runs: list[_Run] = []
        self._first_run: dict[PolicyRules, int] = {}
        self._names: Counter[str] = Counter()
        self._by_term: dict[int, dict[Clause, None]] = {}
        self._ambient: dict[int, dict[Clause, None]] = {}
        self._ambient_in: dict[int, list[Clause]] | None = None
        self._bases: dict[Family, dict[int, Connections]] = {}
        self._memo: dict[object, Outcome] = {}

    def replace(self, gone: Iterable[PolicyRules], come: Iterable[PolicyRules]) -> tuple[set[Watched], bool]:
        """Other policies. Returns on what they depend, and whether even answers that do not may be others."""
        touched: set[Watched] = set()
        ambient = False
        leaving = set(gone)
        self._policies = [rules for rules in self._policies if rules not in leaving]
        for rules in leaving:
            for clause in self._relevant(rules):
                ambient |= self._count(clause, touched, -1)
        for rules in come:
            insort(self._policies, rules, key=lambda r: r.place)
            for clause in self._relevant(rules):
                ambient |= self._count(clause, touched, 1)
        tiers = self._tiers
        if self._cut() or ambient:
            self._ambient_in, self._bases, self._memo = None, {}, {}
        return touched, ambient or tiers != self._tiers

    def outcome(self, family: Family, traits: Traits | None = None) -> Outcome:
        """What peers with these traits may do; without any, those of which nothing is known."""
        hits: list[Clause] = []
        absent, ports = _NONE, _NO_PORTS
        if traits is not None:
            for number in self._by_term.keys() & traits.deviant:
                hits += (clause for clause in self._by_term[number] if family in clause.families)
            absent = frozenset(self._ambient.keys() & traits.deviant)
            if self._names:
                ports = frozenset(port for port in traits.ports if port.name in self._names)
        key = (family, frozenset(clause.number for clause in hits), absent, ports)
        found = self._memo.get(key)
        if found is None:
            if len(self._memo) >= _MEMO:
                self._memo.clear()
            found = self._memo[key] = self._evaluate(family, hits, absent, ports)
        return found

    def _relevant(self, rules: PolicyRules) -> list[Clause]:
        """Those whose own side is this subject's."""
        return [clause for clause in rules.clauses if clause.own is None or clause.own in self.own.terms]

    def _count(self, clause: Clause, touched: set[Watched], by: int) -> bool:
        """One clause more or less. Whether it concerns unknown addresses."""
        term = clause.peer
        place = self._ambient if term.ambient else self._by_term
        if by > 0:
            place.setdefault(term.number, {})[clause] = None
        else:
            del place[term.number][clause]
            if not place[term.number]:
                del place[term.number]
        for name in clause.peer_names:
            self._names[name] += by
            if not self._names[name]:
                del self._names[name]
        watched: tuple[Watched, ...] = (term.number, *clause.peer_names)
        for what in watched:
            touched.add(what)
            self.watched[what] += by
            if not self.watched[what]:
                del self.watched[what]
        return term.ambient

    def _cut(self) -> bool:
        """Number the runs. Whether a number that there was stands for another run now, or a tier is other."""
        runs: list[_Run] = []
        tiers: list[Tier] = []
        first: dict[PolicyRules, int] = {}
        for rules in self._policies:
            if not tiers or tiers[-1].name != rules.tier.name:
                tiers.append(rules.tier)
            for place, action in enumerate(rules.segments):
                if not runs or runs[-1].action != action or runs[-1].tier != len(tiers) - 1:
                    runs.append(_Run(action, len(tiers) - 1))
                if not place:
                    first[rules] = len(runs) - 1
        before = self._first_run
        moved = any(before.get(rules, run) != run for rules, run in first.items())
        other = moved or runs != self._runs or tiers != self._tiers
        self._runs, self._tiers, self._first_run = runs, tiers, first
        return other

    def _run(self, clause: Clause) -> int:
        return self._first_run[clause.rules] + clause.segment

    def _ambient_runs(self) -> dict[int, list[Clause]]:
        """The clauses that unknown addresses match, by run."""
        if self._ambient_in is None:
            self._ambient_in = {}
            for clauses in self._ambient.values():
                for clause in clauses:
                    self._ambient_in.setdefault(self._run(clause), []).append(clause)
        return self._ambient_in

    def _base(self, family: Family) -> dict[int, Connections]:
        """What unknown addresses match, by run."""
        if family not in self._bases:
            self._bases[family] = {
                run: united(
                    [
                        clause.connections(family, self.own.ports, _NO_PORTS)
                        for clause in clauses
                        if family in clause.families
                    ]
                )
                for run, clauses in self._ambient_runs().items()
                if self._runs[run].action != "log"
            }
        return self._bases[family]

    def _evaluate(self, family: Family, hits: list[Clause], absent: frozenset[int], ports: Ports) -> Outcome:
        matching = {run: [found] for run, found in self._base(family).items()}
        logging: dict[int, list[Clause]] = {}
        anew = self._differing(absent, ports)
        for run in anew:
            matching.pop(run, None)
        ambient = (
            clause
            for run, clauses in self._ambient_runs().items()
            if run in anew or self._runs[run].action == "log"
            for clause in clauses
            if family in clause.families and clause.peer.number not in absent
        )
        for clause in (*ambient, *hits):
            run = self._run(clause)
            if clause.action == "log":
                logging.setdefault(run, []).append(clause)
            else:
                found = clause.connections(family, self.own.ports, ports)
                matching.setdefault(run, []).append(found)
        steps: list[list[Step]] = [[] for _ in self._tiers]
        for run in sorted({*matching, *logging}):
            action, tier = self._runs[run]
            if run in matching:
                steps[tier].append(Step(action, united(matching[run])))
            for clause in sorted(logging.get(run, ()), key=lambda c: (c.rules.place, c.number)):
                found = clause.connections(family, self.own.ports, ports)
                steps[tier].append(Step("log", found, clause.prefix))
        outcome: Outcome = self.unmatched
        for tier in reversed(range(len(self._tiers))):
            outcome = decided(steps[tier], self._tiers[tier].default, outcome)
        return outcome

    def _differing(self, absent: frozenset[int], ports: Ports) -> set[int]:
        """The runs of which peers do not match the same of the ambient clauses as unknown addresses."""
        found = {self._run(clause) for number in absent for clause in self._ambient[number]}
        if ports:
            for run, clauses in self._ambient_runs().items():
                if any(clause.peer_names for clause in clauses):
                    found.add(run)
        return found
