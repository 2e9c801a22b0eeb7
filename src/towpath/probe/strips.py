"""Strips: what each path saw over time, a character a moment. Pure.

A moment is the worst of what any probe of the path saw in it: a denied probe answered, then a loss, then all
well; blind only if no probe at all was looking.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from towpath.probe.gaps import Gap
from towpath.probe.plan import Probe
from towpath.probe.samples import INVALID, PENDING, REFUSED, Series, answered
from towpath.probe.samples import LOST as LOST_MARK

UNKNOWN, BLIND, FINE, LOST, OPEN = range(5)
CHARACTERS = {UNKNOWN: " ", FINE: "·", BLIND: "░", LOST: "█", OPEN: "!"}
LEGEND = "· all answered   █ lost   ! denied traffic let through   ░ prober stalled, not counted"

Parts = Sequence[tuple[Probe, Series]]


def states(parts: Parts, begin: int, end: int, cells: int) -> list[int]:
    """The worst state in each of ``cells`` equal stretches of ``begin`` to ``end`` (nanoseconds)."""
    found = [UNKNOWN] * cells
    width = max(1, (end - begin) // cells)
    for probe, series in parts:
        part = series.window(begin, end)
        if not part.values:
            continue
        if all_fine(part.values, denied=probe.kind.denied):
            first = (part.start - begin) // width
            last = (part.start + (len(part.values) - 1) * part.period - begin) // width
            for cell in range(max(0, first), min(cells, last + 1)):
                found[cell] = max(found[cell], FINE)
            continue
        for slot, value in enumerate(part.values):
            cell = (part.start + slot * part.period - begin) // width
            if value == PENDING or not 0 <= cell < cells:
                continue
            state = _state(value, denied=probe.kind.denied)
            if state > found[cell]:
                found[cell] = state
    return found


def all_fine(values: Sequence[int], *, denied: bool) -> bool:
    """Whether nothing in ``values`` needs a closer look; decided without a loop in Python."""
    if denied:
        return min(values) in (LOST_MARK, REFUSED) and max(values) in (LOST_MARK, REFUSED)
    return max(values) < INVALID


def _state(value: int, *, denied: bool) -> int:
    if value == INVALID:
        return BLIND
    if answered(value):
        return OPEN if denied else FINE
    return FINE if denied else LOST


def text(cells: Sequence[int], gap_ms: Iterable[tuple[int, float]] = ()) -> str:
    """One character a cell; ``gap_ms`` (cell after the gap, milliseconds) are written behind their gaps."""
    characters = [CHARACTERS[cell] for cell in cells]
    for cell, milliseconds in gap_ms:
        label = f"{milliseconds:.0f}ms"
        for place, character in enumerate(label, cell):
            if place >= len(characters) or cells[place] not in (FINE, UNKNOWN):
                break
            characters[place] = character
    return "".join(characters)


class Seen(msgspec.Struct, frozen=True):
    """A gap (or a fail-open window) of a probe, in wall nanoseconds."""

    begin: int
    end: int
    bad: int


def merged(found: Iterable[Seen]) -> list[Seen]:
    """Gaps of several probes that overlap become one, from the first begin to the last end."""
    result: list[Seen] = []
    for gap in sorted(found, key=lambda gap: gap.begin):
        if result and gap.begin <= result[-1].end:
            last = result[-1]
            result[-1] = Seen(last.begin, max(last.end, gap.end), last.bad + gap.bad)
        else:
            result.append(gap)
    return result


def seen(gaps: Iterable[Gap], series: Series) -> Iterator[Seen]:
    """Gaps by slot as gaps by time."""
    for gap in gaps:
        begin = series.start + gap.first * series.period
        yield Seen(begin, begin + gap.slots * series.period, gap.bad)


def labels(found: Iterable[Seen], begin: int, end: int, cells: int) -> list[tuple[int, float]]:
    """For ``text``: where each gap of the stretch is labelled, and how long it was."""
    width = max(1, (end - begin) // cells)
    return [
        (min(cells, (gap.end - begin) // width + 1), (gap.end - gap.begin) / 1e6)
        for gap in merged(found)
        if begin <= gap.end <= end
    ]


def by_path(parts: Parts) -> Mapping[tuple[str, int], Parts]:
    """Grouped by path and family, in the order of the probes' numbers."""
    grouped: dict[tuple[str, int], list[tuple[Probe, Series]]] = {}
    for probe, series in sorted(parts, key=lambda part: part[0].number):
        grouped.setdefault((probe.path, probe.family), []).append((probe, series))
    return grouped
