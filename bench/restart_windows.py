"""Windows of faults, and what is made of the samples in them."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from towpath.probe.account import Total, account, gaps_of
from towpath.probe.collect import Collection
from towpath.probe.levels import ADDED_P999_MS, Level, judge
from towpath.probe.samples import INVALID
from towpath.probe.strips import Parts

CONTROL, BETWEEN = "control", "between"
BEGUN = time.monotonic()
_ORDER = [Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE, Level.UNKNOWN]


class Window(msgspec.Struct, frozen=True):
    """When a fault happened: wall nanoseconds. ``times`` how many agents it met; ``after`` what ended where
    it begins, if that is not the fault's own beginning."""

    fault: str
    begin: int
    end: int
    times: int = 1
    after: str = ""


def say(text: str) -> None:
    """Progress."""
    print(f"{time.monotonic() - BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)


def figures(
    name: str, windows: Sequence[Window], parts: Callable[[Window], Parts], control: Total
) -> dict[str, object]:
    """One fault's object of the last line."""
    mine = [window for window in windows if window.fault == name]
    each = [account(parts(window)) for window in mine]
    together = account([part for window in mine for part in parts(window)])
    added = together.p999_ms - control.p999_ms
    # A window alone: latency is not judged, and stalled probers are judged over all windows.
    levels = [judge(msgspec.structs.replace(one, invalid=0), None).level for one in each]
    worst = max(levels, key=_ORDER.index)
    if added > ADDED_P999_MS:
        worst = max(worst, Level.H1, key=_ORDER.index)
    return {
        "lost": together.lost,
        "gap_ms": round(max(one.gap_ms for one in each), 1),
        "failed_connects": together.failed_connects,
        "fail_open_ms": round(max(one.fail_open_ms for one in each), 1),
        "p999_added_ms": round(added, 2),
        "level": str(worst),
        "n": sum(window.times for window in mine),
    }


def between(windows: Sequence[Window], begun: int, ended: int) -> list[Window]:
    """The time that is no fault's own, from ``begun`` to ``ended``; control windows are part of it."""
    found, at, after = [], begun, "the beginning"
    faults = sorted((w for w in windows if w.fault != CONTROL), key=lambda w: w.begin)
    for number, window in enumerate(faults):
        found.append(Window(BETWEEN, at, window.begin, after=after))
        at, after = window.end, f"{window.fault}, window {number}"
    return [*found, Window(BETWEEN, at, max(at, ended), after=after)]


def tell_invalid(collection: Collection, windows: Sequence[Window]) -> None:
    """In whose time the probers were stalled, the share of each fault's samples."""
    shares = []
    for name in dict.fromkeys(window.fault for window in windows):
        mine = [w for w in windows if w.fault == name]
        values = [s.values for w in mine for _, s in collection.parts(w.begin, w.end)]
        invalid, slots = sum(v.count(INVALID) for v in values), sum(len(v) for v in values)
        shares.append(f"{name} {100 * invalid / max(slots, 1):.2f} % of {slots}")
    say(f"invalid: {', '.join(shares)}")


def tell_losses(collection: Collection, windows: Sequence[Window], one_by_one: Sequence[str]) -> None:
    """Where every loss was, a line a fault; those of faults that must lose nothing one by one."""
    for name in dict.fromkeys(window.fault for window in windows):
        by_place: Counter[str] = Counter()
        for number, window in enumerate(w for w in windows if w.fault == name):
            for probe, series in collection.parts(window.begin, window.end):
                for gap in gaps_of(probe, series):
                    place = f"{probe.path} IPv{probe.family} {probe.kind}"
                    by_place[place] += gap.bad
                    if name in one_by_one:
                        after = (series.start + gap.first * series.period - window.begin) / 1e9
                        at = f"{after:.3f} s after {window.after or 'it began'}"
                        say(f"  {name} {number}: {place}: {gap.bad} bad, {at}")
        if by_place:
            say(f"{name}: " + ", ".join(f"{place} {bad}" for place, bad in by_place.most_common()))
