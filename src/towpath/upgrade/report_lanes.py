"""The report's drawings: a lane a node with its phases, and a strip a path. Pure.

A phase is told by its place, its pattern's name under the pointer and the table below, never by colour alone.
"""

from html import escape

from towpath.probe import svg
from towpath.probe.strips import BLIND, CHARACTERS, FINE, LOST, OPEN
from towpath.upgrade.evidence import PathSeen
from towpath.upgrade.report import Phase, Report, Span

COLOURS: dict[Phase, str] = {
    "replacing": "#0072b2",
    "gates": "#009e73",
    "mending": "#d55e00",
    "rolling back": "#cc79a7",
    "paused": "#bbbbbb",
    "evicting": "#e69f00",
}
PHASES: dict[Phase, str] = {
    "evicting": "its pods are moved away (only with --drain)",
    "replacing": "its network pod is replaced by one of the new version",
    "gates": "its gates look whether it is well; the next node waits for that",
    "mending": "it did not pass, and gets its old version back",
    "rolling back": "somebody wanted everything as it was",
    "paused": "the whole upgrade stood still",
}
_ROW, _GAP = 18, 6
_STATES = {char: state for state, char in CHARACTERS.items()}
_FILLS = {FINE: svg.FINE, LOST: svg.LOST, OPEN: svg.OPEN, BLIND: "url(#blind)"}
_WORDS = {FINE: "all answered", LOST: "lost", OPEN: "denied traffic let through", BLIND: "prober stalled"}


def lanes(found: Report) -> str:
    """Nodes from top to bottom in their order, time from left to right."""
    seconds = max(found.seconds, 1.0)
    bottom = len(found.nodes) * (_ROW + _GAP)
    rows = [_span(pause, 0, bottom, seconds, "#eeeeee") for pause in found.pauses]
    for index, node in enumerate(found.nodes):
        y = index * (_ROW + _GAP)
        name = escape(node.node if len(node.node) <= 14 else f"{node.node[:13]}…")
        rows.append(f'<text x="{svg.LEFT - 6}" y="{y + 13}" text-anchor="end">{name}</text>')
        rows.append(f'<path d="M{svg.LEFT} {y + _ROW}H{svg.WIDTH}" stroke="#ddd"/>')
        rows += [_span(span, y, _ROW, seconds, COLOURS[span.phase]) for span in node.spans]
        rows += [_mark(span, y, seconds) for span in node.spans if span.phase == "mending"]
    rows += svg.time_axis(seconds, bottom + 6)
    return svg.drawing(bottom + 24, "Nodes and what was done to them, over time", rows)


def key() -> str:
    """What the colours mean, as HTML."""
    return "".join(
        f'<li><span class="key" style="background:{COLOURS[phase]}"></span><b>{phase}</b>: {words}</li>'
        for phase, words in PHASES.items()
    )


def _span(span: Span, y: float, height: float, seconds: float, fill: str) -> str:
    begin, end = svg.place(span.begin, seconds), svg.place(span.end, seconds)
    words = f"{span.phase}, {span.end - span.begin:.1f} s from {span.begin:.1f} s: {span.what}"
    return svg.rect(begin, y, max(1.5, end - begin), height, fill, words)


def _mark(span: Span, y: float, seconds: float) -> str:
    x = svg.place(span.begin, seconds)
    return f'<text x="{x:.1f}" y="{y + 13}" font-weight="bold">✗</text>'


def strip(path: PathSeen) -> str:
    """What the probes of one path saw: full bars where it was not as it should be."""
    cells = [_STATES.get(char, FINE) for char in path.strip]
    width = (svg.WIDTH - svg.LEFT - 14) / max(1, len(cells))
    rows, begin = [], 0
    for index in range(1, len(cells) + 1):
        if index < len(cells) and cells[index] == cells[begin]:
            continue
        state = cells[begin]
        if state in _FILLS:
            x, height = svg.LEFT + begin * width, 12 if state != FINE else 6
            words = f"{_WORDS[state]}, from {_at(path, begin, len(cells))} s"
            y = 0 if state != FINE else 3
            rows.append(svg.rect(x, y, max(1.5, (index - begin) * width), height, _FILLS[state], words))
        begin = index
    rows += svg.time_axis(max(0.1, path.end - path.begin), 14)
    name = escape(f"{path.path} IPv{path.family}")
    return f"<div>{name}: {_counts(path)}</div>" + svg.drawing(30, f"{path.path}, IPv{path.family}", rows)


def _at(path: PathSeen, cell: int, cells: int) -> str:
    return f"{(path.end - path.begin) * cell / max(1, cells):.1f}"


def _counts(path: PathSeen) -> str:
    opened = f", <b>{path.opened} denied ones let through</b>" if path.opened else ""
    if not path.lost:
        return f"all {path.sent:,} answered{opened}"
    return f"<b>{path.lost} of {path.sent:,} lost</b>, longest gap {path.gap_ms:.0f} ms{opened}"
