"""Tiers of runs evaluated from the last to the first, each into the connections that come out allowed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from towpath.policy.conn_rules import Logged, Outcome, Steps, matches
from towpath.policy.connections import ALL, NOTHING, Connections
from towpath.policy.ir import Action, Default


class Step(NamedTuple):
    """What is done with these connections, if nothing was before. ``prefix`` is for a log line."""

    action: Action
    connections: Connections
    prefix: str = ""


def decided(steps: Sequence[Step], default: Default, rest: Outcome) -> Outcome:
    """The steps, in order, of a tier in which a policy applies. ``rest``: what later tiers make of it."""
    if any(step.action == "log" for step in steps):
        steps = list(_reached(steps))
        if any(step.action == "log" for step in steps):
            return _logged(steps, default, rest)
    allowed, passed = _sorted(steps, default)
    if isinstance(rest, Connections):
        return allowed | passed & rest if passed else allowed
    if not passed:
        return allowed
    if passed == ALL:
        return rest
    rules: list[tuple[str, Outcome | Logged]] = [(match, ALL) for match in matches(allowed)]
    rules += ((match, rest) for match in matches(passed))
    return Steps((*rules, ("", NOTHING)))


def united(sets: Sequence[Connections]) -> Connections:
    """All of them together. Halves first: what has many parts is not gone through again for each other."""
    if len(sets) < 3:
        return (sets[0] | sets[1] if len(sets) == 2 else sets[0]) if sets else NOTHING
    middle = len(sets) // 2
    return united(sets[:middle]) | united(sets[middle:])


def _sorted(steps: Sequence[Step], default: Default) -> tuple[Connections, Connections]:
    """What the tier allows, and what leaves it by pass."""
    allowed, passed, undecided = NOTHING, NOTHING, ALL
    for place, step in enumerate(steps):
        hit = step.connections if undecided == ALL else step.connections & undecided
        if step.action == "allow":
            allowed = allowed | hit if allowed else hit
        elif step.action == "pass":
            passed = passed | hit if passed else hit
        if place == len(steps) - 1 and default == "deny":
            break  # what nothing decides is not asked for
        undecided -= hit
        if not undecided:
            break
    else:
        if default == "allow":
            allowed |= undecided
        elif default == "pass":
            passed |= undecided
    return allowed, passed


def _logged(steps: Sequence[Step], default: Default, rest: Outcome) -> Outcome:
    """In the order in which it is looked at, since what is logged depends on it."""
    then: dict[str, Outcome] = {"allow": ALL, "deny": NOTHING, "pass": rest}
    rules: list[tuple[str, Outcome | Logged]] = []
    for step in steps:
        for match in matches(step.connections):
            if step.action == "log":
                rules.append((match, Logged(step.prefix)))
            else:
                rules.append((match, then[step.action]))
    return Steps((*rules, ("", then[default])))


def _reached(steps: Sequence[Step]) -> Iterator[Step]:
    """Of each step what no earlier one has decided."""
    undecided = ALL
    for step in steps:
        hit = step.connections & undecided
        if hit:
            yield step._replace(connections=hit)
            if step.action != "log":
                undecided -= hit
