"""A policy's rules of one direction, made ready: peers as terms, ports as sets of connections."""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from towpath.model.net import Family
from towpath.policy.connections import Connections
from towpath.policy.facts import Term
from towpath.policy.ir import Action, Direction, NamedPort, Peer, Policy, Rule, Tier
from towpath.policy.rule_connections import names_of, rule_connections
from towpath.policy.terms import ANYONE, Asked, Terms, narrowed

# (order, name) of the tier, then of the policy.
Place = tuple[tuple[float, str], tuple[float, str, str, str, str]]
Ports = frozenset[NamedPort]

_FAMILIES: tuple[Family, ...] = (4, 6)
LOG_MARK = "tp:"
_PREFIX_LENGTH = 127  # what NFLOG takes, in bytes
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9 ._/:\[\]-]")
_numbers = count()


class Clause:
    """A rule, or its part for one family. ``peer`` is the far side, ``own`` the subject's, None if not asked.

    ``segment``: how often the action changes before it within the policy. ``index``: the rule's place among
    the policy's. ``prefix``: what a log line begins with.
    """

    __slots__ = (
        "_known",
        "_named",
        "action",
        "direction",
        "families",
        "index",
        "number",
        "own",
        "own_names",
        "peer",
        "peer_names",
        "prefix",
        "rule",
        "rules",
        "segment",
    )

    def __init__(
        self, rules: "PolicyRules", index: int, families: tuple[Family, ...], rule: Rule, prefix: str
    ) -> None:
        self.number = next(_numbers)
        self.rules = rules
        self.index = index
        self.rule = rule
        self.action: Action = rule.action
        self.direction: Direction = rules.direction
        self.families = families
        self.segment = 0
        self.prefix = prefix
        self.peer: Term
        self.own: Term | None = None
        source, destination = names_of(rule)
        inward = rules.direction == "ingress"
        self.peer_names, self.own_names = (source, destination) if inward else (destination, source)
        self._named = bool(source or destination)
        self._known: dict[tuple[Family, Ports, Ports], Connections] = {}

    def connections(self, family: Family, own: Ports, peer: Ports) -> Connections:
        """What it is about, where the subject and the peer have these named ports."""
        if not self._named:
            return rule_connections(self.rule, family, (), ())
        own = frozenset(port for port in own if port.name in self.own_names)
        peer = frozenset(port for port in peer if port.name in self.peer_names)
        found = self._known.get((family, own, peer))
        if found is None:
            source, destination = (peer, own) if self.direction == "ingress" else (own, peer)
            found = self._known[family, own, peer] = rule_connections(self.rule, family, source, destination)
        return found


class Shape:
    """What some clauses match, wherever they stand: (segment, connections). Equal ones are mostly the same
    object, and are told apart by that: there are few, of many policies.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[tuple[int, Connections], ...]) -> None:
        self.parts = parts


_shape = lru_cache(maxsize=1 << 14)(Shape)


class Group:
    """The clauses of a policy that ask the same of their peers."""

    __slots__ = ("_plain", "clauses")

    def __init__(self, clauses: tuple[Clause, ...]) -> None:
        self.clauses = clauses
        self._plain: tuple[Shape, Shape] | None = None

    def shape(self, family: Family, own: Ports, peer: Ports) -> Shape:
        """What they match, where the subject and the peer have these named ports."""
        if self._plain is not None:
            return self._plain[family == 6]
        if not any(clause.peer_names or clause.own_names for clause in self.clauses):
            self._plain = self._made(4, own, peer), self._made(6, own, peer)
            return self._plain[family == 6]
        return self._made(family, own, peer)

    def _made(self, family: Family, own: Ports, peer: Ports) -> Shape:
        return _shape(
            tuple(
                (clause.segment, clause.connections(family, own, peer))
                for clause in self.clauses
                if family in clause.families
            )
        )


class Asking(NamedTuple):
    """What clauses ask of peers. ``of``: the clauses by the number of their peer's term; ``ambient``: the
    numbers of those terms that unknown addresses match; ``names`` of ports; whether any clause ``logs``.
    """

    of: dict[int, Group]
    ambient: frozenset[int]
    names: frozenset[str]
    logs: bool


class PolicyRules:
    """All clauses of one direction. ``segments`` are the actions of consecutive clauses, each once. ``mark``
    tells policies apart by their place, whatever their rules.

    None at all stands for any policy of its tier that says nothing: that there is one is all that counts, and
    ``policy``, its name, is empty.
    """

    __slots__ = (
        "_asking",
        "clauses",
        "direction",
        "mark",
        "own_names",
        "own_terms",
        "place",
        "policy",
        "segments",
        "tier",
    )

    def __init__(self, direction: Direction, tier: Tier, place: Place, policy: str = "") -> None:
        self.policy = policy
        self.direction = direction
        self.tier = tier
        self.place = place
        self.mark = int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=8).digest(), "big")
        self.clauses: tuple[Clause, ...] = ()
        self.segments: tuple[Action, ...] = ()
        self._asking: Asking | None = None
        self.own_terms: tuple[Term, ...] = ()
        self.own_names: frozenset[str] = frozenset()

    def asked_by(self, own: frozenset[Term]) -> Asking:
        """What the clauses ask that may concern a subject whose own address matches these terms.

        Call it when terms are settled.
        """
        if not self.own_terms:
            if self._asking is None:
                self._asking = _asking(self.clauses)
            return self._asking
        return _asking(clause for clause in self.clauses if clause.own is None or clause.own in own)


def _asking(clauses: Iterable[Clause]) -> Asking:
    by_term: dict[int, list[Clause]] = {}
    ambient: set[int] = set()
    names: frozenset[str] = frozenset()
    logs = False
    for clause in clauses:
        by_term.setdefault(clause.peer.number, []).append(clause)
        if clause.peer.ambient:
            ambient.add(clause.peer.number)
        names |= clause.peer_names
        logs |= clause.action == "log"
    groups = {number: Group(tuple(some)) for number, some in by_term.items()}
    return Asking(groups, frozenset(ambient), names, logs)


def compiled(policy: Policy, direction: Direction, tier: Tier, terms: Terms) -> PolicyRules:
    """The policy's rules, their terms acquired; ``released`` gives them back."""
    rules = PolicyRules(direction, tier, (tier.sort_key, policy.sort_key), str(policy))
    clauses: list[Clause] = []
    segments: list[Action] = []
    for index, rule in enumerate(policy.rules(direction) or ()):
        for clause in _clauses(rules, index, rule, _prefix(policy, direction, index, rule), terms):
            if not segments or segments[-1] != clause.action:
                segments.append(clause.action)
            clause.segment = len(segments) - 1
            clauses.append(clause)
    rules.clauses, rules.segments = tuple(clauses), tuple(segments)
    rules.own_terms = tuple(dict.fromkeys(clause.own for clause in clauses if clause.own is not None))
    rules.own_names = frozenset[str]().union(*(clause.own_names for clause in clauses))
    return rules


def released(rules: PolicyRules, terms: Terms) -> None:
    """These are in use no longer."""
    for clause in rules.clauses:
        terms.release(clause.peer)
        if clause.own is not None:
            terms.release(clause.own)


def log_identity(policy: Policy, direction: Direction, index: int) -> str:
    """What a rule's log lines end with, and where it is found by: names can be longer than a line."""
    return hashlib.sha256(f"{policy} {direction} {index}".encode()).hexdigest()[:12]


def _clauses(rules: PolicyRules, index: int, rule: Rule, prefix: str, terms: Terms) -> list[Clause]:
    """One for both families where they are asked the same, else one each; none where nothing can match."""
    peer, own = (
        (rule.source, rule.destination) if rules.direction == "ingress" else (rule.destination, rule.source)
    )
    if rule.action == "allow" and (peer.service is not None or own.service is not None):
        return []  # one that was never resolved
    found = []
    for (asked, asked_own), families in _sides(rule, peer, own).items():
        clause = Clause(rules, index, families, rule, prefix)
        clause.peer = terms.acquire(asked)
        clause.own = terms.acquire(asked_own) if asked_own != ANYONE else None
        found.append(clause)
    return found


def _sides(rule: Rule, peer: Peer, own: Peer) -> dict[tuple[Asked, Asked], tuple[Family, ...]]:
    """What is asked of both sides, and of which families."""
    families = _FAMILIES if rule.family is None else (rule.family,)
    sides: dict[tuple[Asked, Asked], tuple[Family, ...]] = {}
    for family in families:
        asked, asked_own = narrowed(peer, family), narrowed(own, family)
        if asked is not None and asked_own is not None:
            if not any(side.nets is not None or side.not_nets for side in (peer, own)):
                return {(asked, asked_own): families}
            sides[asked, asked_own] = (*sides.get((asked, asked_own), ()), family)
    return sides


def _prefix(policy: Policy, direction: Direction, index: int, rule: Rule) -> str:
    if rule.action != "log":
        return ""
    text = f"{LOG_MARK}{policy} {rule.path or f'{direction}[{index}]'}"
    identity = f" #{log_identity(policy, direction, index)}"
    return _UNPRINTABLE.sub("_", text)[: _PREFIX_LENGTH - len(identity)] + identity
