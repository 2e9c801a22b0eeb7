"""The outcome of a run as one value: what is written as JSON and drawn as a page. Pure."""

import datetime
from collections.abc import Sequence

import msgspec

from towpath.probe.account import Figures, Total, account, bitmaps, figures, gaps_of
from towpath.probe.collect import Collection
from towpath.probe.histogram import PERCENTILES, Histogram
from towpath.probe.levels import H2_GAP_MS, Judgement, Level, judge
from towpath.probe.plan import Kind, Probe
from towpath.probe.samples import Series, answered
from towpath.probe.strips import Parts, by_path, merged, seen

SCHEMA = "towpath.dev/probe-result/v1"
MEASURED = (
    "Send times are fixed in advance, whether or not earlier questions were answered; latency counts from "
    "the intended time. Answers over UDP and echoes over TCP are stamped by the kernel when they reach the "
    "prober's network namespace; handshakes by the prober. Latency includes the answering program. A sample "
    "is invalid, and counts neither as lost nor as answered, when the prober itself was more than one period "
    "late."
)


class GapSeen(msgspec.Struct, frozen=True, kw_only=True):
    """``at_ms`` after the beginning, ``ms`` long, ``bad`` samples known to be bad in it."""

    at_ms: float
    ms: float
    bad: int


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One probe. Bitmaps: base64, slot 0 in the lowest bit of the first byte; slot n at
    ``first_ms + n * period_ms``. ``histogram``: HdrHistogram V2 of microseconds, "" for denied probes."""

    kind: Kind
    address: str
    port: int
    period_ms: float
    first_ms: float
    slots: int
    answered: str
    invalid: str
    histogram: str
    figures: Figures
    gaps: tuple[GapSeen, ...]


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """Latencies of one second: [seconds after the beginning, p50, p99, max] in milliseconds."""

    second: int
    p50: float
    p99: float
    longest: float


class PathResult(msgspec.Struct, frozen=True, kw_only=True):
    """One path in one family, all kinds of probes together. ``percentiles``: [percent, ms] pairs."""

    path: str
    family: int
    judgement: Judgement
    total: Total
    gaps: tuple[GapSeen, ...]
    percentiles: tuple[tuple[float, float], ...]
    moments: tuple[Moment, ...]
    probes: tuple[ProbeResult, ...]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, by the one who did it."""

    at_ms: float
    what: str


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A probe that proves nothing, and why."""

    path: str
    family: int
    kind: Kind
    why: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``begun`` RFC 3339 in UTC; the first ``control_s`` seconds are what the rest is compared
    with; ``judgement`` is of the rest. ``title`` says what was done meanwhile."""

    schema: str = SCHEMA
    title: str
    begun: str
    seconds: float
    control_s: float
    judgement: Judgement
    total: Total
    control: Total | None
    paths: tuple[PathResult, ...]
    marks: tuple[Mark, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    measured: str = MEASURED


def result(
    collection: Collection,
    begun: int,
    ended: int,
    *,
    title: str,
    control_s: float = 0.0,
    marks: Sequence[Mark] = (),
    budget_ms: float = H2_GAP_MS,
) -> Result:
    """All from ``begun`` until ``ended`` (wall nanoseconds), judged against the first ``control_s``."""
    parts = list(collection.parts(begun, ended))
    split = begun + int(control_s * 1e9)
    paths = tuple(_path(key, group, begun, split, budget_ms) for key, group in by_path(parts).items())
    whole, control = account(_cut(parts, split)), account(_cut(parts, begun, split)) if control_s else None
    return Result(
        title=title,
        begun=datetime.datetime.fromtimestamp(begun / 1e9, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round((ended - begun) / 1e9, 3),
        control_s=control_s,
        judgement=_overall(judge(whole, control, budget_ms=budget_ms), paths),
        total=whole,
        control=control,
        paths=paths,
        marks=tuple(marks),
        left_out=tuple(
            LeftOut(path=probe.path, family=probe.family, kind=probe.kind, why=why)
            for number, why in sorted(collection.left_out.items())
            for probe in (collection.probes[number],)
        ),
    )


def _overall(together: Judgement, paths: Sequence[PathResult]) -> Judgement:
    """As good as the worst path: one that is stalled for all is not made up for by ten that are fine."""
    order = [Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE, Level.UNKNOWN]
    if together.level is Level.UNKNOWN or not paths:
        return together
    judged = [path for path in paths if path.judgement.level is not Level.UNKNOWN]
    worst = max(judged, key=lambda path: order.index(path.judgement.level), default=None)
    if worst is None or order.index(worst.judgement.level) <= order.index(together.level):
        return together
    where = f"{worst.path} IPv{worst.family}"
    why = tuple(f"{where}: {reason}" for reason in worst.judgement.why)
    return Judgement(level=worst.judgement.level, why=why, added_ms=worst.judgement.added_ms)


def _cut(parts: Parts, begin: int, end: int = 1 << 63) -> Parts:
    return [(probe, series.window(begin, end)) for probe, series in parts]


def _path(key: tuple[str, int], parts: Parts, begun: int, split: int, budget_ms: float) -> PathResult:
    after = account(_cut(parts, split))
    control = account(_cut(parts, begun, split)) if split > begun else None
    histogram = Histogram(
        latency for probe, series in parts if not probe.kind.denied for latency in series.latencies()
    )
    gaps = merged(gap for probe, series in parts for gap in seen(gaps_of(probe, series), series))
    return PathResult(
        path=key[0],
        family=key[1],
        judgement=judge(after, control, budget_ms=budget_ms),
        total=after,
        gaps=tuple(
            GapSeen(at_ms=(gap.begin - begun) / 1e6, ms=(gap.end - gap.begin) / 1e6, bad=gap.bad)
            for gap in gaps
        ),
        percentiles=tuple((p, histogram.percentile(p) / 1000) for p in PERCENTILES),
        moments=_moments(parts, begun),
        probes=tuple(_probe(probe, series, begun) for probe, series in parts),
    )


def _probe(probe: Probe, series: Series, begun: int) -> ProbeResult:
    replied, invalid = bitmaps(series)
    period_ms = series.period / 1e6
    first_ms = (series.start - begun) / 1e6
    return ProbeResult(
        kind=probe.kind,
        address=probe.address,
        port=probe.port,
        period_ms=period_ms,
        first_ms=first_ms,
        slots=len(series.values),
        answered=replied.encode(),
        invalid=invalid.encode(),
        histogram="" if probe.kind.denied else Histogram(series.latencies()).encode(),
        figures=figures(probe, series),
        gaps=tuple(
            GapSeen(at_ms=first_ms + gap.first * period_ms, ms=gap.slots * period_ms, bad=gap.bad)
            for gap in gaps_of(probe, series)
        ),
    )


def _moments(parts: Parts, begun: int) -> tuple[Moment, ...]:
    """Latencies second by second, exact (a second has a few hundred)."""
    by_second: dict[int, list[int]] = {}
    for probe, series in parts:
        if probe.kind.denied:
            continue
        for slot, value in enumerate(series.values):
            if answered(value):
                second = (series.start + slot * series.period - begun) // 1_000_000_000
                by_second.setdefault(second, []).append(value)
    found = []
    for second, values in sorted(by_second.items()):
        values.sort()
        last = len(values) - 1
        picked = (values[last // 2], values[min(last, int(last * 0.99))], values[last])
        found.append(Moment(second, *(value / 1000 for value in picked)))
    return tuple(found)
