"""What a subject's policies make of one class of peers: the ordered rules that concern it, evaluated once.

The rules of all policies are cut into runs: neighbours of one tier and one action. Within a run order does
not matter, so that it is one set of connections, most of which is the same for every class.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from towpath.model.net import Family
from towpath.policy.classes import Watched
from towpath.policy.clauses import Asking, Clause, Group, Place, PolicyRules, Ports
from towpath.policy.conn_rules import Outcome
from towpath.policy.connections import Connections
from towpath.policy.facts import Term, Traits
from towpath.policy.ir import Tier
from towpath.policy.runs import Runs
from towpath.policy.verdicts import Step, decided, united

_NO_PORTS: Ports = frozenset()


class Own(NamedTuple):
    """What counts of the subject's own side: the terms that its address matches, its named ports."""

    terms: frozenset[Term] = frozenset()
    ports: Ports = frozenset()


_Counts = dict[int, dict[Connections, int]]
"""By run: what is matched in it, and by how many clauses."""


class _Answers:
    """What has been worked out, for as long as runs keep their numbers.

    ``bases``: what unknown addresses match, by run. ``counts``: what is matched of a term's rules, by family
    and the peer's ports. ``matching``: the same, put together.
    """

    __slots__ = ("bases", "counts", "matching", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[tuple[Family, frozenset[int], frozenset[int], Ports], Outcome] = {}
        self.bases: dict[Family, dict[int, Connections]] = {}
        self.counts: dict[int, dict[tuple[Family, Ports], _Counts]] = {}
        self.matching: dict[tuple[int, Family, Ports], dict[int, Connections]] = {}

    def count(self, number: int, group: Group, first: int, own: Ports, by: int) -> bool:
        """Clauses of a term more or less. Whether that may change anything."""
        changed = number not in self.counts
        for (family, ports), runs in self.counts.get(number, {}).items():
            for segment, connections in group.shape(family, own, ports).parts:
                counts = runs.setdefault(first + segment, {})
                counts[connections] = counts.get(connections, 0) + by
                if counts[connections] == (by > 0):
                    self.matching.pop((number, family, ports), None)
                    changed = True
                if not counts[connections]:
                    del counts[connections]
        return changed


class Revision(NamedTuple):
    """What other policies mean for answers. ``touched``: what they ask, which may be watched now or no more;
    ``changed``: on what answers that may be others depend. ``everything``: all answers may be others.
    """

    touched: set[Watched]
    changed: set[Watched]
    everything: bool


class Decisions:
    """The policies that apply to a subject in one direction, and its own side.

    ``lenient``: no tier decides by its default, whatever that is.
    """

    def __init__(self, unmatched: Outcome, own: Own, *, lenient: bool = False) -> None:
        self.unmatched = unmatched
        self.own = own
        self.lenient = lenient
        self._asked: dict[PolicyRules, Asking] = {}
        self._runs = Runs()
        self._by_term: dict[int, dict[PolicyRules, None]] = {}
        self._ambient: set[int] = set()  # terms that unknown addresses match
        self._names: Counter[str] = Counter()
        self._logs = 0
        self._answers = _Answers()

    def watches(self, what: Watched) -> bool:
        """Whether answers may depend on it. Those that depend on nothing are as for unknown addresses."""
        return what in self._by_term or what in self._names

    def watched(self) -> list[Watched]:
        """All that ``watches``."""
        return [*self._by_term, *self._names]

    def replace(self, gone: Iterable[PolicyRules], come: Sequence[PolicyRules]) -> Revision:
        """Other policies."""
        revision = Revision(set(), set(), everything=False)
        ambient = False
        leaving = [(rules, self._asked.pop(rules), self._runs.first.get(rules, 0)) for rules in gone]
        arriving = [(rules, rules.asked_by(self.own.terms)) for rules in come]
        recut = self._runs.replace([rules for rules, _, _ in leaving], come)
        for rules, asking in arriving:
            self._asked[rules] = asking
            self._note(rules, asking)
        for rules, asking, _ in leaving:
            self._forget(rules, asking)
        for asking in (*(asking for _, asking in arriving), *(asking for _, asking, _ in leaving)):
            revision.touched.update(asking.of, asking.names)
            ambient |= bool(asking.ambient)
        if recut or ambient:
            self._answers = _Answers()
            return revision._replace(everything=True)
        for rules, asking in arriving:
            self._count(asking, self._runs.first.get(rules, 0), 1, revision)
        for _, asking, first in leaving:
            self._count(asking, first, -1, revision)
        if revision.changed:
            self._answers.outcomes = {}
        return revision

    def outcome(self, family: Family, traits: Traits | None = None) -> Outcome:
        """What peers with these traits may do; without any, those of which nothing is known."""
        deviant = self._by_term.keys() & traits.deviant if traits is not None else set[int]()
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
        deviant = self._by_term.keys() & traits.deviant if traits is not None else set[int]()
        known = traits.ports if traits is not None else _NO_PORTS
        ports = frozenset(port for port in known if port.name in self._names)
        matching: dict[str, Clause] = {}
        for clause in self._about(deviant ^ self._ambient):
            if clause.action == "log" or family not in clause.families:
                continue
            best = matching.get(clause.rules.tier.name)
            if best is not None and _place(best) < _place(clause):
                continue
            if clause.connections(family, self.own.ports, ports).contains(protocol, first, second):
                matching[clause.rules.tier.name] = clause
        for tier in self._runs.tiers:
            yield tier, matching.get(tier.name)

    def _about(self, numbers: Iterable[int]) -> Iterator[Clause]:
        """The clauses of these terms."""
        for number in numbers:
            for rules in self._by_term[number]:
                yield from self._asked[rules].of[number].clauses

    def _count(self, asking: Asking, first: int, by: int, revision: Revision) -> None:
        """Rules more or less, as far as something is known of their terms."""
        for number, group in asking.of.items():
            if self._answers.count(number, group, first, self.own.ports, by) or asking.logs:
                revision.changed.add(number)
            if number not in self._by_term:
                self._answers.counts.pop(number, None)
        revision.changed.update(asking.names)

    def _note(self, rules: PolicyRules, asking: Asking) -> None:
        by_term = self._by_term
        for number in asking.of:
            if number in by_term:
                by_term[number][rules] = None
            else:
                by_term[number] = {rules: None}
        self._logs += asking.logs
        if asking.ambient:
            self._ambient |= asking.ambient
        if asking.names:
            self._names.update(asking.names)

    def _forget(self, rules: PolicyRules, asking: Asking) -> None:
        for number in asking.of:
            asked = self._by_term[number]
            del asked[rules]
            if not asked:
                del self._by_term[number]
                self._ambient.discard(number)
        self._logs -= asking.logs
        for name in asking.names:
            self._names[name] -= 1
            if not self._names[name]:
                del self._names[name]

    def _evaluate(
        self, family: Family, present: frozenset[int], absent: frozenset[int], ports: Ports
    ) -> Outcome:
        """Tier by tier from the last, each knowing what becomes of what it passes on."""
        sets: dict[int, list[Connections]] = {}
        actions = self._runs.actions
        if absent or ports:
            parts = [self._matching(number, family, ports) for number in (*present, *self._ambient - absent)]
        else:
            parts = [self._base(family), *(self._matching(number, family, ports) for number in present)]
        for part in parts:
            for run, connections in part.items():
                sets.setdefault(run, []).append(connections)
        found = [
            (run, Step(actions[run], united(several)))
            for run, several in sets.items()
            if actions[run] != "log"
        ]
        if self._logs:
            found += self._logging((*present, *self._ambient - absent), family, ports)
        tiers = self._runs.tiers
        steps: list[list[Step]] = [[] for _ in tiers]
        for run, step in sorted(found, key=lambda one: one[0]):
            steps[self._runs.tier_of[run]].append(step)
        outcome: Outcome = self.unmatched
        for place in reversed(range(len(tiers))):
            default = "pass" if self.lenient else tiers[place].default
            outcome = decided(steps[place], default, outcome)
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
                known[family, ports] = self._counted(number, family, ports)
            found = {run: united(list(counts)) for run, counts in known[family, ports].items() if counts}
            self._answers.matching[number, family, ports] = found
        return found

    def _counted(self, number: int, family: Family, ports: Ports) -> _Counts:
        own, first, asked = self.own.ports, self._runs.first, self._asked
        shapes = Counter(
            [
                (first[rules], asked[rules].of[number].shape(family, own, ports))
                for rules in self._by_term[number]
            ]
        )
        runs: _Counts = {}
        for (begin, shape), times in shapes.items():
            for segment, connections in shape.parts:
                counts = runs.setdefault(begin + segment, {})
                counts[connections] = counts.get(connections, 0) + times
        return runs

    def _logging(self, numbers: Iterable[int], family: Family, ports: Ports) -> Iterator[tuple[int, Step]]:
        """What is logged of addresses that match these terms, by run, in the order of the rules."""
        clauses = [c for c in self._about(numbers) if c.action == "log" and family in c.families]
        for clause in sorted(clauses, key=_place):
            connections = clause.connections(family, self.own.ports, ports)
            yield self._runs.of(clause), Step("log", connections, clause.prefix)


def _place(clause: Clause) -> tuple[Place, int]:
    return clause.rules.place, clause.number
