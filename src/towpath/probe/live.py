"""The terminal while a run is under way: one strip a path, gaps labelled; plain lines off a terminal."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from towpath.probe.account import gaps_of
from towpath.probe.collect import Collection
from towpath.probe.strips import LEGEND, Parts, by_path, labels, seen, states, text
from towpath.probe.tally import Tally

if TYPE_CHECKING:
    from rich.text import Text

_CELL = 100_000_000  # nanoseconds a character
_EDGE = 1_500_000_000  # the youngest that is shown: later than that not all has been reported


def strip(parts: Parts, begin: int, end: int, cells: int) -> str:
    """One path's strip."""
    found = [gap for probe, series in parts for gap in seen(gaps_of(probe, series), series)]
    return text(states(parts, begin, end, cells), labels(found, begin, end, cells))


def lines(collection: Collection, tally: Tally, begun: int, now: int, width: int) -> list[str]:
    """All strips of the time until ``now`` that fits into ``width`` characters, with their names; behind them
    what was lost since ``begun``."""
    begin = max(begun, now - width * _CELL)
    grouped = by_path(list(collection.parts(begin, now)))
    names = {key: f"{key[0]} IPv{key[1]}" for key in grouped}
    name_width = max((len(name) for name in names.values()), default=0)
    cells = max(10, min(width - name_width - 32, (now - begun) // _CELL or 1))
    begin = max(begun, now - cells * _CELL)
    tally.update(collection, now)
    return [
        f"{names[key]:<{name_width}} {strip(parts, begin, now, cells)} {_lost(tally, parts)}"
        for key, parts in grouped.items()
    ]


def whole(collection: Collection, begun: int, ended: int, width: int) -> list[str]:
    """All strips of a finished run, squeezed into ``width``, with a legend."""
    grouped = by_path(list(collection.parts(begun, ended)))
    names = {key: f"{key[0]} IPv{key[1]}" for key in grouped}
    name_width = max((len(name) for name in names.values()), default=0)
    cells = max(20, min(width - name_width - 32, (ended - begun) // _CELL or 1))
    tally = Tally(begun)
    tally.update(collection, ended)
    shown = [
        f"{names[key]:<{name_width}} {strip(parts, begun, ended, cells)} {_lost(tally, parts)}"
        for key, parts in grouped.items()
    ]
    step = (ended - begun) / cells / 1e6
    return [*shown, f"{'':<{name_width}} {LEGEND}; a character is {step:.0f} ms"]


def _lost(tally: Tally, parts: Parts) -> str:
    return tally.words(probe.number for probe, _ in parts)


class Screen:
    """Draws what a collection knows, four times a second at most. ``terminal`` False: a line every 5 s."""

    def __init__(self, *, terminal: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if terminal else None
        self._last = 0.0
        self._tally: Tally | None = None

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, collection: Collection, begun: int, head: str) -> None:
        """Draw, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._last < (0.25 if self._live else 5.0):
            return
        self._last = now
        edge = max(begun, time.time_ns() - _EDGE)
        tally = self._tally = self._tally or Tally(begun)
        if self._live:
            body = [head, *lines(collection, tally, begun, edge, self._console.width), LEGEND, "Ctrl-C stops"]
            height = max(3, self._console.height - 1)
            self._live.update(_coloured(body[:height]), refresh=True)
        else:
            tally.update(collection, edge)
            words = tally.words(collection.counting())
            self._console.print(f"{head}: {words}", markup=False)


def _coloured(body: Sequence[str]) -> "Text":
    from rich.text import Text

    drawn = Text("\n".join(body), no_wrap=True, overflow="crop")
    drawn.highlight_regex("█+", "bold red")
    drawn.highlight_regex("!+", "bold magenta")
    drawn.highlight_regex(r"\d+ms", "red")
    drawn.highlight_regex("░+", "dim")
    return drawn
