"""Accounting: slots into figures, a probe's and a path's. Pure."""

import math
from array import array
from collections.abc import Iterable, Sequence

import msgspec

from towpath.probe.bitmap import Bitmap
from towpath.probe.gaps import Gap, gaps, longest
from towpath.probe.plan import Kind, Probe
from towpath.probe.samples import INVALID, PENDING, REFUSED, Series, answered

INVALID_LIMIT = 0.01  # more than this share of invalid samples and a run proves nothing


class Figures(msgspec.Struct, kw_only=True, frozen=True):
    """What one probe saw. Milliseconds, if not said otherwise.

    ``sent`` slots asked and settled; ``invalid`` those (of ``sent`` + ``invalid``) in which the prober was
    late; ``lost`` unanswered, of which ``refused`` by somebody's word. For denied probes ``lost`` is 0 and
    ``opened`` counts answers; ``gap_ms`` is then 0 and ``fail_open_ms`` the time in which answers came.
    ``stall_ms``: the longest latency, for a TCP echo the time for which its stream stood still.
    """

    sent: int = 0
    invalid: int = 0
    lost: int = 0
    refused: int = 0
    opened: int = 0
    gap_ms: float = 0.0
    gaps: int = 0
    fail_open_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    stall_ms: float = 0.0
    lag_ms: float = 0.0

    @property
    def invalid_share(self) -> float:
        """Of all slots, those that say nothing; 1 when there are none at all."""
        total = self.sent + self.invalid
        return self.invalid / total if total else 1.0


def figures(probe: Probe, series: Series) -> Figures:
    """Count one probe's slots. PENDING ones are left out: they may yet be answered."""
    denied = probe.kind.denied
    values = series.values
    invalid = values.count(INVALID)
    sent = len(values) - invalid - values.count(PENDING)
    replies = sorted(series.latencies())
    found = gaps(values, denied=denied)
    worst = longest(found)
    period_ms = series.period / 1e6
    if denied:
        return Figures(
            sent=sent,
            invalid=invalid,
            opened=len(replies),
            gaps=len(found),
            fail_open_ms=sum(gap.slots for gap in found) * period_ms,
            lag_ms=series.lag / 1000,
        )
    return Figures(
        sent=sent,
        invalid=invalid,
        lost=sent - len(replies),
        refused=values.count(REFUSED),
        gap_ms=worst.slots * period_ms if worst else 0.0,
        gaps=len(found),
        p50_ms=percentile(replies, 50),
        p99_ms=percentile(replies, 99),
        p999_ms=percentile(replies, 99.9),
        stall_ms=percentile(replies, 100),
        lag_ms=series.lag / 1000,
    )


def percentile(ordered: Sequence[int], percent: float) -> float:
    """The least value, in milliseconds, at or below which ``percent`` of ``ordered`` microseconds lie."""
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(0, rank - 1)] / 1000 if ordered else 0.0


class Total(msgspec.Struct, kw_only=True, frozen=True):
    """What a set of probes saw together: sums of counts, the worst of times, one histogram's percentiles.

    ``failed_connects`` are the losses of ``tcp-connect``; ``lost`` are those of all kinds, these included.
    """

    sent: int = 0
    invalid: int = 0
    lost: int = 0
    failed_connects: int = 0
    opened: int = 0
    gap_ms: float = 0.0
    stall_ms: float = 0.0
    fail_open_ms: float = 0.0
    p50_ms: float = 0.0
    p999_ms: float = 0.0
    lag_ms: float = 0.0

    @property
    def invalid_share(self) -> float:
        """Of all slots, those that say nothing; 1 when there are none at all."""
        total = self.sent + self.invalid
        return self.invalid / total if total else 1.0


def total(parts: Sequence[tuple[Probe, Figures]], latencies: Sequence[int]) -> Total:
    """Add up; ``latencies`` are those of all of them, in order (``latencies_of``)."""
    every = [part for _, part in parts]
    connects = [part for probe, part in parts if probe.kind is Kind.CONNECT]
    echoes = [part for probe, part in parts if probe.kind is Kind.ECHO]
    return Total(
        sent=sum(p.sent for p in every),
        invalid=sum(p.invalid for p in every),
        lost=sum(p.lost for p in every),
        failed_connects=sum(p.lost for p in connects),
        opened=sum(p.opened for p in every),
        gap_ms=max((p.gap_ms for p in every), default=0.0),
        stall_ms=max((p.stall_ms for p in echoes), default=0.0),
        fail_open_ms=max((p.fail_open_ms for p in every), default=0.0),
        p50_ms=percentile(latencies, 50),
        p999_ms=percentile(latencies, 99.9),
        lag_ms=max((p.lag_ms for p in every), default=0.0),
    )


def latencies_of(parts: Iterable[tuple[Probe, Series]]) -> "array[int]":
    """All latencies of probes that ought to be answered, in order."""
    found = array("I")
    for probe, series in parts:
        if not probe.kind.denied:
            found.extend(series.latencies())
    return array("I", sorted(found))


def account(parts: Sequence[tuple[Probe, Series]]) -> Total:
    """Figures of a set of probes over the slots given."""
    return total([(probe, figures(probe, series)) for probe, series in parts], latencies_of(parts))


def bitmaps(series: Series) -> tuple[Bitmap, Bitmap]:
    """Which slots were answered, and which are invalid."""
    return (
        Bitmap.of(answered(value) for value in series.values),
        Bitmap.of(value in (INVALID, PENDING) for value in series.values),
    )


def gaps_of(probe: Probe, series: Series) -> tuple[Gap, ...]:
    """A probe's gaps, or fail-open windows."""
    return gaps(series.values, denied=probe.kind.denied)
