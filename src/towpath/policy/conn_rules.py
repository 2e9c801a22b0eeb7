"""What a verdict comes to as nft rules. Numbers instead of names: not every image has ``/etc/protocols``.

"Allowed" is ``return``: the other side's policies are asked next. "Denied" is ``goto denied``.
"""

from collections.abc import Callable
from typing import Union

import msgspec

from towpath.model.policy import DENIED
from towpath.policy.connections import ALL, EVERY_PROTOCOL, Connections, Ranges, everything, normalised
from towpath.policy.ir import ICMP, ICMPV6

RETURN, GOTO_DENIED = "return", f"goto {DENIED}"
_LOGGED_PER_SECOND = 100  # of each rule: a flood of first packets is not to become one of messages

_TYPED = {ICMP: "icmp", ICMPV6: "icmpv6"}


class Logged(msgspec.Struct, frozen=True):
    """A copy of the packet goes to whoever listens, with these words."""

    prefix: str


class Steps(msgspec.Struct, frozen=True):
    """Rules in order: what to match, and what is then decided, or said without deciding anything.

    Only where something is logged on the way: a set of connections says all else.
    """

    rules: tuple[tuple[str, Union[Connections, "Steps", Logged]], ...]


Outcome = Connections | Steps
"""Which connections are allowed."""

UNDECIDED = Steps(())
"""Neither allowed nor denied: what comes after these policies has to say."""


def rules_of(
    outcome: Outcome, verdict: Callable[[Outcome], str], group: int, allowed_verdict: str = RETURN
) -> tuple[str, ...]:
    """The chain that decides so. ``verdict`` of what a step leads to: ``goto`` another chain, mostly;
    ``group`` of NFLOG.
    """
    if isinstance(outcome, Steps):
        return tuple(
            _log(text, then.prefix, group) if isinstance(then, Logged) else final(verdict(then), text)
            for text, then in outcome.rules
        )
    allowed, denied = matches(outcome), matches(ALL - outcome)
    if len(denied) < len(allowed):
        return (*(final(GOTO_DENIED, text) for text in denied), allowed_verdict)
    return (*(final(allowed_verdict, text) for text in allowed), final(GOTO_DENIED))


def final(verdict: str, match: str = "") -> str:
    """A rule. Denials are counted."""
    parts = (match, "counter" if verdict == GOTO_DENIED else "", verdict)
    return " ".join(part for part in parts if part)


def _log(match: str, prefix: str, group: int) -> str:
    limit = f"limit rate {_LOGGED_PER_SECOND}/second burst {_LOGGED_PER_SECOND} packets"
    return f'{match} {limit} log prefix "{prefix}" group {group}'.lstrip()


def matches(connections: Connections) -> list[str]:
    """Expressions that together match these connections, of one family; no two match the same."""
    if connections.whole == EVERY_PROTOCOL:
        return [""]
    found = []
    if connections.whole:
        whole = [(n, n) for n in range(256) if connections.whole >> n & 1]
        found.append(f"meta l4proto {_any_of(normalised(whole))}")
    for protocol, area in connections.parts:
        first_name, second_name = (
            (f"{_TYPED[protocol]} type", f"{_TYPED[protocol]} code")
            if protocol in _TYPED
            else ("th sport", "th dport")
        )
        every = everything(protocol)
        for first, second in area:
            criteria = [f"meta l4proto {protocol}"]
            if first != every:
                criteria.append(f"{first_name} {_any_of(first)}")
            if second != every:
                criteria.append(f"{second_name} {_any_of(second)}")
            found.append(" ".join(criteria))
    return found


def _any_of(ranges: Ranges) -> str:
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
