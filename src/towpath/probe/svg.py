"""Drawings for the report: strips and latency plots as inline SVG. Pure.

Colours are Okabe and Ito's, told apart by colour-blind readers, and never carry the meaning alone: a loss is
also a full-height bar with its length in words, a stalled prober hatched.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

from towpath.probe.bitmap import Bitmap
from towpath.probe.result import Mark, Moment, PathResult, ProbeResult

FINE, LOST, OPEN, BLIND = "#009e73", "#d55e00", "#cc79a7", "#767676"
LINES = (("p50", "#0072b2", ""), ("p99", "#e69f00", "6 3"), ("longest", "#d55e00", "2 3"))
NUMBERED = 20  # as many marks have room for their numbers
WIDTH, LEFT, _ROW, _GAP = 1000, 92, 12, 3


def strip(path: PathResult, seconds: float, control_s: float, marks: Sequence[Mark]) -> str:
    """One path: a row a kind of probe, time to the right; gaps in words below."""
    rows = []
    for index, probe in enumerate(path.probes):
        rows.append(_row(probe, index * (_ROW + _GAP), seconds))
    bottom = len(path.probes) * (_ROW + _GAP)
    for number, mark in enumerate(marks, 1):
        rows.append(_vertical(mark.at_ms / 1000, seconds, bottom, "#000", mark.what))
        if len(marks) <= NUMBERED:
            x = place(mark.at_ms / 1000, seconds)
            rows.append(f'<text x="{x:.1f}" y="-1" text-anchor="middle">{number}</text>')
    if control_s:
        rows.append(_vertical(control_s, seconds, bottom, "#0072b2", "the control window ends here"))
    rows += _gap_labels(path, seconds, bottom)
    rows += time_axis(seconds, bottom + 16)
    title = f"{path.path}, IPv{path.family}: {len(path.gaps)} gaps, {path.total.lost} lost"
    return drawing(bottom + 34, title, rows)


def _row(probe: ProbeResult, y: int, seconds: float) -> str:
    parts = [f'<text x="{LEFT - 6}" y="{y + 10}" text-anchor="end">{probe.kind}</text>']
    begin, end = (
        place(probe.first_ms / 1000, seconds),
        place((probe.first_ms + probe.slots * probe.period_ms) / 1000, seconds),
    )
    parts.append(rect(begin, y + 3, max(1.0, end - begin), _ROW - 6, FINE))
    for first, length in Bitmap.decode(probe.invalid, probe.slots).runs():
        parts.append(_stretch(probe, first, length, y, seconds, "url(#blind)", "prober stalled"))
    for gap in probe.gaps:
        slot, slots = round((gap.at_ms - probe.first_ms) / probe.period_ms), round(gap.ms / probe.period_ms)
        what = "let through" if probe.kind.denied else "lost"
        words = f"{gap.bad} {what}, {gap.ms:.0f} ms, at {gap.at_ms / 1000:.2f} s"
        parts.append(_stretch(probe, slot, slots, y, seconds, OPEN if probe.kind.denied else LOST, words))
    return "".join(parts)


def _stretch(
    probe: ProbeResult, first: int, length: int, y: int, seconds: float, fill: str, words: str
) -> str:
    begin = place((probe.first_ms + first * probe.period_ms) / 1000, seconds)
    end = place((probe.first_ms + (first + length) * probe.period_ms) / 1000, seconds)
    return rect(begin, y, max(1.5, end - begin), _ROW, fill, words)


def _gap_labels(path: PathResult, seconds: float, y: int) -> list[str]:
    """The length of every gap that has room beside its neighbour."""
    found, last = [], -1e9
    for gap in path.gaps:
        x = place(gap.at_ms / 1000, seconds)
        if x - last >= 46:
            found.append(f'<text x="{x:.1f}" y="{y + 10}" fill="{LOST}">{gap.ms:.0f} ms</text>')
            last = x
    return found


def latencies(path: PathResult, seconds: float) -> str:
    """Latency over time, logarithmic: median, 99th percentile and the longest of every second."""
    if not path.moments:
        return ""
    height, top = 110, max(1.0, *(m.longest for m in path.moments))
    low, high = -1.0, math.ceil(math.log10(top))
    rows = []
    for power in range(int(low), int(high) + 1):
        y = height - (power - low) / (high - low) * height
        rows.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH}" stroke="#ddd"/>')
        rows.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
    for name, colour, dashes in LINES:
        points = " ".join(_point(m, name, seconds, height, low, high) for m in path.moments)
        style = f'stroke="{colour}" stroke-dasharray="{dashes}" fill="none" stroke-width="1.6"'
        rows.append(f'<polyline points="{points}" {style}><title>{name}</title></polyline>')
    rows += time_axis(seconds, height + 14)
    return drawing(height + 32, f"{path.path}, IPv{path.family}: latency over time", rows)


def _point(moment: Moment, name: str, seconds: float, height: int, low: float, high: float) -> str:
    value = max(10**low, getattr(moment, name))
    y = height - (math.log10(value) - low) / (high - low) * height
    return f"{place(moment.second + 0.5, seconds):.1f},{y:.1f}"


def time_axis(seconds: float, y: int) -> list[str]:
    """Seconds, at most a dozen of them written."""
    step = next(s for s in (1, 2, 5, 10, 30, 60, 120, 300, 600, 3600, 1e9) if seconds / s <= 12)
    marks = range(0, int(seconds) + 1, int(step))
    return [
        f'<text x="{place(at, seconds):.1f}" y="{y + 8}" text-anchor="middle" fill="#555">{at} s</text>'
        for at in marks
    ]


def _vertical(at: float, seconds: float, height: int, colour: str, words: str) -> str:
    x = place(at, seconds)
    line = f'<path d="M{x:.1f} 0V{height}" stroke="{colour}" stroke-dasharray="4 2" stroke-width="1.2"/>'
    return f"<g>{line}<title>{escape(words)}</title></g>"


def rect(x: float, y: float, width: float, height: float, fill: str, words: str = "") -> str:
    """With ``words`` as what a pointer over it tells."""
    title = f"<title>{escape(words)}</title>" if words else ""
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{fill}">{title}</rect>'


def place(at: float, seconds: float) -> float:
    """Where a moment lies from left to right."""
    return LEFT + min(max(at / seconds, 0.0), 1.0) * (WIDTH - LEFT - 14)


def drawing(height: int, title: str, rows: Iterable[str]) -> str:
    """The SVG element; ``title`` for those who cannot see it."""
    head = f'<svg viewBox="0 -11 {WIDTH} {height + 11}" role="img" aria-label="{escape(title, quote=True)}">'
    return f"{head}<title>{escape(title)}</title>{''.join(rows)}</svg>"


PATTERNS = (
    '<svg width="0" height="0" aria-hidden="true"><defs><pattern id="blind" width="6" height="6" '
    'patternUnits="userSpaceOnUse"><rect width="6" height="6" fill="#eee"/>'
    f'<path d="M0 6L6 0" stroke="{BLIND}"/>'
    "</pattern></defs></svg>"
)
