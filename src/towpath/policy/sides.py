"""What each side allows, answered once for all places whose policies are the same.

The peers of such a gate are sets of places, and every rule divides each set by its boxes. How far the
evaluation of ``ir`` has come for a set is a state: what no rule of the tier has decided, what has left the
tier by pass, and what is allowed. Sets that come to the same state are one again, so that there are as many
as there are different answers, however many rules.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce
from itertools import product
from operator import and_, or_, sub
from typing import NamedTuple

from towpath.model.net import Net
from towpath.policy.boxes import Box, boxes
from towpath.policy.connections import ALL, NOTHING, Connections, everything, part
from towpath.policy.evaluate import HOST_ASPECTS
from towpath.policy.ir import TCP, Action, Aspect, Default, Direction, Endpoint, Policy, World, ordered_tiers
from towpath.policy.passage import ENDS, End, host_nodes, passages, seen_from
from towpath.policy.places import Places, ones, refined
from towpath.policy.selection import Selection
from towpath.policy.verdicts import united

Row = dict[Connections, int]
"""The connections allowed, and the places at the other end with which. No two share a place; there is nothing
with those that none has.
"""

Rows = list[tuple[int, Row]]
"""For sources that act alike, what they reach: destinations of their own family, all of them."""

# The same few sets meet again and again.
_and, _or, _sub = (lru_cache(1 << 14)(operation) for operation in (and_, or_, sub))


class _State(NamedTuple):
    undecided: Connections
    passed: Connections
    allowed: Connections


class _Terms(NamedTuple):
    """A box as the judged side sees it."""

    own: int
    peers: int
    connections: Connections


_Rules = tuple[tuple[Action, tuple[_Terms, ...]], ...]


class _Policy(NamedTuple):
    """``selected``: of each layer of judged places."""

    selected: tuple[int, ...]
    rules: _Rules


_Tiers = list[tuple[Default, list[_Policy]]]


class _Gate(NamedTuple):
    """``places`` that answer to the others as ``row`` says."""

    places: int
    row: Row


def rows(world: World, places: Places) -> Rows:
    """All that the world allows: every source place is in one row."""
    selection = Selection(world, places)
    egress = [*_gates(world, places, selection, "egress"), *_passages(world, places, selection, "egress")]
    ingress = [*_gates(world, places, selection, "ingress"), *_passages(world, places, selection, "ingress")]
    cuts = {gate.places for layer in egress for gate in layer}
    cuts.update(peers for layer in ingress for gate in layer for peers in gate.row.values())
    sources = refined(places.families.values(), cuts)
    let_in = [_let_in(layer, sources) for layer in ingress]
    found = []
    for source in sources:
        one = source & -source
        row: Row = {ALL: next(family for family in places.families.values() if family & one)}
        for layer in egress:
            row = _both(row, next(gate.row for gate in layer if gate.places & one))
        for layer_row in let_in:
            row = _both(row, layer_row[one])
        found.append((source, row))
    return found


def _let_in(gates: list[_Gate], sources: list[int]) -> dict[int, Row]:
    """What is let in from each source, known by its first place's bit, by destination."""
    by_source: dict[int, Row] = {source & -source: {} for source in sources}
    first = sum(by_source)
    for gate in gates:
        for connections, peers in gate.row.items():
            for number in ones(peers & first):
                row = by_source[1 << number]
                row[connections] = row.get(connections, 0) | gate.places
    return by_source


def _both(row: Row, other: Row) -> Row:
    found: Row = {}
    for connections, at in row.items():
        for others, at_others in other.items():
            if at & at_others:
                both = _and(connections, others)
                if both:
                    found[both] = found.get(both, 0) | at & at_others
    return found


def _gates(world: World, places: Places, selection: Selection, direction: Direction) -> Iterator[list[_Gate]]:
    """Of each layer, gates that together hold every place. One that is not judged is open."""
    tiers = _tiers(world, places, selection, direction)
    at_home = list(_at_home(world, places, direction))
    for layer, judged in enumerate(selection.layers):
        gates = [_Gate(places.everywhere & ~judged, {ALL: places.everywhere})]
        cuts = [policy.selected[layer] for _, policies in tiers for policy in policies]
        cuts += [own for own, _ in at_home]
        for group in refined([judged], (places.families[4], selection.denying[layer], *cuts)):
            applying = [
                (default, [policy for policy in policies if policy.selected[layer] & group])
                for default, policies in tiers
            ]
            free = reduce(or_, (far for own, far in at_home if own & group), 0)
            answered = _answered(group, applying, places, selection.denying[layer])
            gates += (_Gate(gate.places, _only(gate.row, ~free, places)) for gate in answered)
        yield gates


def _at_home(world: World, places: Places, direction: Direction) -> Iterator[tuple[int, int]]:
    """Of nodes with host endpoints, and their own pods, who is not asked about whom (``evaluate.asked``)."""
    for node in host_nodes(world):
        ends = _ends(world, places, node)
        yield ends["own"], ends["here"]
        if direction == "ingress":
            yield ends["here"], ends["own"]


def _passages(
    world: World, places: Places, selection: Selection, direction: Direction
) -> Iterator[list[_Gate]]:
    """As ``_gates``, of host endpoints that flows pass: a layer for each, and for each two kinds of ends."""
    safe = _failsafes(world, places, direction)
    for node in host_nodes(world):
        ends = _ends(world, places, node)
        for source, destination in product(ENDS, ENDS):
            for passage in passages(world, node, source, destination):
                if passage.direction != direction or not (ends[source] and ends[destination]):
                    continue
                own, far = (ends[destination], ends[source])[:: 1 if direction == "ingress" else -1]
                tiers: _Tiers = []
                for aspect in passage.aspects:
                    tiers += _tiers_of(passage.endpoint, aspect, world, places, selection, direction, safe)
                if not any(policies for _, policies in tiers):
                    continue
                gates = [_Gate(places.everywhere & ~own, {ALL: places.everywhere})]
                for group in refined([own], [places.families[4]]):
                    answered = _answered(group, tiers, places, 0)
                    gates += (_Gate(gate.places, _only(gate.row, far, places)) for gate in answered)
                yield gates


def _ends(world: World, places: Places, node: str) -> dict[End, int]:
    """All places by what they are to a node."""
    at: dict[int, list[Endpoint]] = {}
    for endpoint in world.endpoints:
        for address in endpoint.addresses:
            at.setdefault(places.at(address), []).append(endpoint)
    found = dict.fromkeys(ENDS, 0)
    for number in range(len(places.places)):
        found[seen_from(node, at.get(number, ()))] |= 1 << number
    return found


def _only(row: Row, far: int, places: Places) -> Row:
    """The row for these peers; all others are not asked about."""
    if places.everywhere & ~far == 0:
        return row
    found = {connections: at & far for connections, at in row.items() if at & far}
    found[ALL] = found.get(ALL, 0) | places.everywhere & ~far
    return found


def _tiers(world: World, places: Places, selection: Selection, direction: Direction) -> _Tiers:
    """At host endpoints failsafes come first, then policies before tracking, and before DNAT, which decide
    no more than their rules do.
    """
    every = places.everywhere
    safe = tuple(_Terms(every, at, open_) for at, open_ in _failsafes(world, places, direction))
    found: _Tiers = [("pass", [_Policy(tuple(selection.hosts), (("allow", safe),))])]
    for aspect in HOST_ASPECTS[direction]:
        found += _tiers_in(aspect, world, places, selection, direction)
    return found


def _failsafes(world: World, places: Places, direction: Direction) -> list[tuple[int, Connections]]:
    """What host endpoints' policies are not asked about: the places at the other end, and connections."""
    of = world.failsafes
    every, by_nets = everything(TCP), defaultdict[tuple[Net, ...], list[Connections]](list)
    for one in of.inbound if direction == "ingress" else of.outbound:
        by_nets[one.nets].append(part(one.protocol, every, ((one.port, one.port),)))
    return [(reduce(or_, map(places.inside, nets), 0), united(open_)) for nets, open_ in by_nets.items()]


def _tiers_of(
    endpoint: Endpoint,
    aspect: Aspect,
    world: World,
    places: Places,
    selection: Selection,
    direction: Direction,
    safe: list[tuple[int, Connections]],
) -> _Tiers:
    """Of what passes a host endpoint. Before tracking and DNAT nobody is asked about failsafes."""
    found: _Tiers = []
    for tier in ordered_tiers(world):
        policies = []
        for policy in sorted((p for p in world.policies if p.tier == tier.name), key=lambda p: p.sort_key):
            if aspect in policy.aspects and policy.selector.matches(endpoint.labels):
                seen = _seen(policy, direction, places, selection)
                if seen is not None and aspect != "forwarded":
                    seen = tuple((action, tuple(_unsafe(terms, safe))) for action, terms in seen)
                policies += [_Policy((), seen)] if seen is not None else []
        found.append((tier.default if aspect == "forwarded" else "pass", policies))
    return found


def _unsafe(terms: Iterable[_Terms], safe: list[tuple[int, Connections]]) -> Iterator[_Terms]:
    """Less failsafes."""
    for at, open_ in safe:
        terms = [
            one
            for term in terms
            for one in (
                term._replace(peers=term.peers & ~at),
                term._replace(peers=term.peers & at, connections=term.connections - open_),
            )
            if one.peers and one.connections
        ]
    yield from terms


def _tiers_in(
    aspect: Aspect, world: World, places: Places, selection: Selection, direction: Direction
) -> _Tiers:
    found: _Tiers = []
    judged = selection.layers if aspect == "local" else selection.hosts
    for tier in ordered_tiers(world):
        policies = []
        for policy in sorted((p for p in world.policies if p.tier == tier.name), key=lambda p: p.sort_key):
            seen = _seen(policy, direction, places, selection) if aspect in policy.aspects else None
            if seen is not None:
                selected = tuple(selection.own(policy.selector, n) & at for n, at in enumerate(judged))
                policies.append(_Policy(selected, seen))
        found.append((tier.default if aspect == "local" else "pass", policies))
    return found


def _seen(policy: Policy, direction: Direction, places: Places, selection: Selection) -> _Rules | None:
    """The rules, as the judged side sees them; None if the policy is silent of the direction."""
    rules = policy.rules(direction)
    if rules is None:
        return None
    return tuple(
        (rule.action, tuple(_terms(box, direction) for box in boxes(rule, places, selection)))
        for rule in rules
    )


def _terms(box: Box, direction: Direction) -> _Terms:
    if direction == "ingress":
        return _Terms(box.destinations, box.sources, box.connections)
    return _Terms(box.sources, box.destinations, box.connections)


def _answered(group: int, tiers: _Tiers, places: Places, denying: int) -> Iterator[_Gate]:
    """Places with the same policies, further apart where a rule asks of their own side."""
    first = _State(ALL, NOTHING, NOTHING)
    rules = [rule for _, policies in tiers for policy in policies for rule in policy.rules]
    for gate in refined([group], {terms.own for _, seen in rules for terms in seen}):
        states = {first: next(f for f in places.families.values() if f & gate)}
        for default, policies in tiers:
            for policy in policies:
                for action, seen in policy.rules:
                    for terms in seen:
                        if terms.own & gate:
                            states = _after(states, action, terms)
            if policies:
                states = _after_tier(states, default)
        row: Row = {}
        for state, at in states.items():
            allowed = state.allowed if gate & denying else _or(state.allowed, state.undecided)
            if allowed:
                row[allowed] = row.get(allowed, 0) | at
        yield _Gate(gate, row)


def _after(states: dict[_State, int], action: Action, terms: _Terms) -> dict[_State, int]:
    """What the states are once one box of a rule was looked at."""
    if action == "log":
        return states
    found: dict[_State, int] = {}
    for state, at in states.items():
        inside = at & terms.peers
        decided = _and(state.undecided, terms.connections) if inside else NOTHING
        if decided:
            undecided = _sub(state.undecided, decided)
            match action:
                case "allow":
                    after = _State(undecided, state.passed, _or(state.allowed, decided))
                case "pass":
                    after = _State(undecided, _or(state.passed, decided), state.allowed)
                case _:
                    after = _State(undecided, state.passed, state.allowed)
            found[after] = found.get(after, 0) | inside
            at ^= inside
        if at:
            found[state] = found.get(state, 0) | at
    return found


def _after_tier(states: dict[_State, int], default: Default) -> dict[_State, int]:
    found: dict[_State, int] = {}
    for (undecided, passed, allowed), at in states.items():
        match default:
            case "pass":
                after = _State(_or(undecided, passed), NOTHING, allowed)
            case "allow":
                after = _State(passed, NOTHING, _or(allowed, undecided))
            case "deny":
                after = _State(passed, NOTHING, allowed)
        found[after] = found.get(after, 0) | at
    return found
