"""How hitless: H0, H1, H2 or disruptive, as design §5 defines them. Pure.

H0: nothing lost on any kind of probe, no fail-open, and the 99.9th percentile of latency at most 20 ms above
that of the control window. H1: no gap of 200 ms (the least retransmission time-out of TCP, so that
a stream stalls once at most), no failed connect, no echo stalled for 500 ms. H2: within a declared budget.
Any answer to a denied probe is disruptive, whatever else is true.
"""

from enum import StrEnum

import msgspec

from towpath.probe.account import INVALID_LIMIT, Total

ADDED_P999_MS, H1_GAP_MS, H1_STALL_MS, H2_GAP_MS = 20.0, 200.0, 500.0, 1000.0


class Level(StrEnum):
    """From best to worst; UNKNOWN when too many samples are invalid to say."""

    H0 = "H0"
    H1 = "H1"
    H2 = "H2"
    DISRUPTIVE = "disruptive"
    UNKNOWN = "unknown"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A level, and why it is not a better one (empty for H0). ``added_ms`` None without a control window."""

    level: Level
    why: tuple[str, ...] = ()
    added_ms: float | None = None


def judge(seen: Total, control: Total | None, *, budget_ms: float = H2_GAP_MS) -> Judgement:
    """Judge what was seen against a control window of the same probes; without one, latency is not judged.

    ``budget_ms``: the longest gap and the longest stall that H2 allows.
    """
    if seen.invalid_share > INVALID_LIMIT:
        share = f"{seen.invalid_share:.1%} of the samples are invalid: the probers were stalled"
        return Judgement(level=Level.UNKNOWN, why=(share,))
    added = None if control is None or not control.sent else max(0.0, seen.p999_ms - control.p999_ms)
    if seen.opened:
        opened = f"{seen.opened} denied probes were answered, for {seen.fail_open_ms:.0f} ms"
        return Judgement(level=Level.DISRUPTIVE, why=(opened,), added_ms=added)
    why = _why_not_h0(seen, added)
    if not why:
        return Judgement(level=Level.H0, added_ms=added)
    if not seen.failed_connects and seen.gap_ms < H1_GAP_MS and seen.stall_ms < H1_STALL_MS:
        return Judgement(level=Level.H1, why=why, added_ms=added)
    if seen.gap_ms <= budget_ms and seen.stall_ms <= budget_ms:
        return Judgement(level=Level.H2, why=why, added_ms=added)
    return Judgement(level=Level.DISRUPTIVE, why=why, added_ms=added)


def _why_not_h0(seen: Total, added: float | None) -> tuple[str, ...]:
    why = []
    if seen.lost:
        of_these = f", {seen.failed_connects} of them failed connects" if seen.failed_connects else ""
        why.append(f"{seen.lost} of {seen.sent} lost{of_these}; longest gap {seen.gap_ms:.0f} ms")
    if added is not None and added > ADDED_P999_MS:
        why.append(f"the 99.9th percentile rose by {added:.1f} ms")
    return tuple(why)
