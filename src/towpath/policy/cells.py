"""What a subject's policies make of one class of peers: the ordered rules that concern it, evaluated once.

The rules of all policies are cut into runs: neighbours of one tier and one action. Within a run order does
not matter, so that it is one set of connections, most of which is the same for every class.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from towpath.model.net import Family
from towpath.policy.classes import Watched
from towpath.policy.clauses import Clause, Place, PolicyRules, Ports
from towpath.policy.conn_rules import Outcome
from towpath.policy.connections import Connections
from towpath.policy.facts import Term, Traits
from towpath.policy.ir import Action, Tier
from towpath.policy.verdicts import Step, decided, united

_NO_PORTS: Ports = frozenset()


class Own(NamedTuple):
    """What counts of the subject's own side: the terms that its address matches, its named ports."""

    terms: frozenset[Term] = frozenset()
    ports: Ports = frozenset()


class _Run(NamedTuple):
    action: Action
    tier: int


class _Answers:
    """What has been worked out, for as long as runs keep their numbers.

    ``counts``: by term, family and the peer's ports, what is matched in each run, and by how many clauses.
    ``matching``: the same, put together.
    """

    __slots__ = ("bases", "counts", "matching", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[Family, frozenset[int], frozenset[int], Ports], Outcome] = {}
        self.bases: dict[Family, dict[int, Connections]] = {}
        self.counts: dict[int, dict[tuple[Family, Ports], dict[int, Counter[Connections]]]] = {}
        self.matching: dict[tuple[int, Family, Ports], dict[int, Connections]] = {}

    def count(self, clause: Clause, run: int, own: Ports, by: int) -> None:
        """One clause more or less, where that is known of its term."""
        self.outcomes = {}
        for (family, ports), runs in self.counts.get(clause.peer.number, {}).items():
            self.matching.pop((clause.peer.number, family, ports), None)
            if family in clause.families and clause.action != "log":
                connections = clause.connections(family, own, ports)
                counts = runs.setdefault(run, Counter())
                counts[connections] += by
                if not counts[connections]:
                    del counts[connections]


class Decisions:
    """The policies that apply to a subject in one direction, and its own side."""

    def __init__(self, unmatched: Connections, own: Own) -> None:
        self.unmatched = unmatched
        self.own = own
        self._policies: list[PolicyRules] = []
        self._tiers: list[Tier] = []
        self._runs: list[_Run] = []
        self._first_run: dict[PolicyRules, int] = {}
        self._clauses: dict[int, dict[Clause, None]] = {}  # by term
        self._ambient: set[int] = set()  # terms that unknown addresses match
        self._names: Counter[str] = Counter()
        self._logs = 0
        self._answers = _Answers()

    def watches(self, what: Watched) -> bool:
        """Whether answers may depend on it. Those that depend on nothing are as for unknown addresses."""
        return what in self._clauses or what in self._names

    def watched(self) -> list[Watched]:
        """All that ``watches``."""
        return [*self._clauses, *self._names]

    def replace(self, gone: Iterable[PolicyRules], come: Sequence[PolicyRules]) -> tuple[set[Watched], bool]:
        """Other policies. Returns on what they depend, and whether even answers that do not may be others."""
        terms: set[Term] = set()
        names: set[str] = set()
        leaving = set(gone)
        self._policies = [rules for rules in self._policies if rules not in leaving]
        for rules in leaving:
            for clause in self._relevant(rules):
                self._count(clause, -1, terms, names)
                self._answers.count(clause, self._run(clause), self.own.ports, -1)
        for rules in come:
            insort(self._policies, rules, key=lambda r: r.place)
            for clause in self._relevant(rules):
                self._count(clause, 1, terms, names)
        ambient = any(term.ambient for term in terms)
        tiers = self._tiers
        if self._cut() or ambient:
            self._answers = _Answers()
        else:
            for rules in come:
                for clause in self._relevant(rules):
                    self._answers.count(clause, self._run(clause), self.own.ports, 1)
        return {term.number for term in terms} | names, ambient or tiers != self._tiers

    def outcome(self, family: Family, traits: Traits | None = None) -> Outcome:
        """What peers with these traits may do; without any, those of which nothing is known."""
        deviant = self._clauses.keys() & traits.deviant if traits is not None else set[int]()
        absent = frozenset(deviant & self._ambient)
        present = frozenset(deviant - self._ambient)
        ports = _NO_PORTS
        if traits is not None and self._names:
            ports = frozenset(port for port in traits.ports if port.name in self._names)
        key = (family, present, absent, ports)
        found = self._answers.outcomes.get(key)
        if found is None:
            found = self._answers.outcomes[key] = self._evaluate(family, present, absent, ports)
        return found

    def deciding(
        self, family: Family, traits: Traits | None, protocol: int, first: int, second: int
    ) -> Iterator[tuple[Tier, Clause | None]]:
        """Tier by tier, the first rule that matches a packet and does not only log; None: the tier's default.

        ``traits`` of the peer; ``first`` and ``second``: source and destination port, or type and code.
        """
        deviant = self._clauses.keys() & traits.deviant if traits is not None else set[int]()
        known = traits.ports if traits is not None else _NO_PORTS
        ports = frozenset(port for port in known if port.name in self._names)
        matching: dict[str, Clause] = {}
        for number in deviant ^ self._ambient:
            for clause in self._clauses[number]:
                if clause.action == "log" or family not in clause.families:
                    continue
                best = matching.get(clause.rules.tier.name)
                if best is not None and _place(best) < _place(clause):
                    continue
                if clause.connections(family, self.own.ports, ports).contains(protocol, first, second):
                    matching[clause.rules.tier.name] = clause
        for tier in self._tiers:
            yield tier, matching.get(tier.name)

    def _relevant(self, rules: PolicyRules) -> Iterator[Clause]:
        """Those that may concern this subject's own side."""
        for clause in rules.clauses:
            if clause.own is None or clause.own in self.own.terms:
                yield clause

    def _run(self, clause: Clause) -> int:
        return self._first_run[clause.rules] + clause.segment

    def _count(self, clause: Clause, by: int, terms: set[Term], names: set[str]) -> None:
        """A clause more or less."""
        term = clause.peer
        terms.add(term)
        if by > 0:
            self._clauses.setdefault(term.number, {})[clause] = None
            if term.ambient:
                self._ambient.add(term.number)
        else:
            del self._clauses[term.number][clause]
            if not self._clauses[term.number]:
                del self._clauses[term.number]
                self._ambient.discard(term.number)
        self._logs += by * (clause.action == "log")
        for name in clause.peer_names:
            names.add(name)
            self._names[name] += by
            if not self._names[name]:
                del self._names[name]

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

    def _evaluate(
        self, family: Family, present: frozenset[int], absent: frozenset[int], ports: Ports
    ) -> Outcome:
        """Tier by tier from the last, each knowing what becomes of what it passes on."""
        sets: dict[int, list[Connections]] = {}
        if absent or ports:
            parts = [self._matching(number, family, ports) for number in (*present, *self._ambient - absent)]
        else:
            parts = [self._base(family), *(self._matching(number, family, ports) for number in present)]
        for part in parts:
            for run, connections in part.items():
                sets.setdefault(run, []).append(connections)
        found = [(run, Step(self._runs[run].action, united(several))) for run, several in sets.items()]
        if self._logs:
            found += self._logging((*present, *self._ambient - absent), family, ports)
        steps: list[list[Step]] = [[] for _ in self._tiers]
        for run, step in sorted(found, key=lambda one: one[0]):
            steps[self._runs[run].tier].append(step)
        outcome: Outcome = self.unmatched
        for place in reversed(range(len(self._tiers))):
            outcome = decided(steps[place], self._tiers[place].default, outcome)
        return outcome

    def _base(self, family: Family) -> dict[int, Connections]:
        """What unknown addresses match, by run."""
        found = self._answers.bases.get(family)
        if found is None:
            sets: dict[int, list[Connections]] = {}
            for number in self._ambient:
                for run, connections in self._matching(number, family, _NO_PORTS).items():
                    sets.setdefault(run, []).append(connections)
            found = self._answers.bases[family] = {run: united(several) for run, several in sets.items()}
        return found

    def _matching(self, number: int, family: Family, ports: Ports) -> dict[int, Connections]:
        """What addresses that match a term match of its rules, by run."""
        found = self._answers.matching.get((number, family, ports))
        if found is None:
            known = self._answers.counts.setdefault(number, {})
            if (family, ports) not in known:
                runs = known[family, ports] = {}
                for clause in self._clauses[number]:
                    if family in clause.families and clause.action != "log":
                        counts = runs.setdefault(self._run(clause), Counter())
                        counts[clause.connections(family, self.own.ports, ports)] += 1
            found = {run: united(list(counts)) for run, counts in known[family, ports].items() if counts}
            self._answers.matching[number, family, ports] = found
        return found

    def _logging(self, numbers: Iterable[int], family: Family, ports: Ports) -> Iterator[tuple[int, Step]]:
        """What is logged of addresses that match these terms, by run, in the order of the rules."""
        clauses = [
            clause
            for number in numbers
            for clause in self._clauses[number]
            if clause.action == "log" and family in clause.families
        ]
        for clause in sorted(clauses, key=lambda clause: (clause.rules.place, clause.number)):
            connections = clause.connections(family, self.own.ports, ports)
            yield self._run(clause), Step("log", connections, clause.prefix)


def _place(clause: Clause) -> tuple[Place, int]:
    return clause.rules.place, clause.number
