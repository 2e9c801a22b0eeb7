"""What was lost until now, counted once a slot: a run of two days is followed as cheaply as one of a minute.
Pure.
"""

from collections.abc import Iterable

import msgspec

from towpath.probe.collect import Collection
from towpath.probe.gaps import gaps, longest
from towpath.probe.plan import Probe
from towpath.probe.samples import INVALID, PENDING, Series


class _Counted(msgspec.Struct):
    """One probe. Gaps that are over are in ``bad`` and ``worst`` (slots); slots from ``at`` (wall
    nanoseconds) on were not counted, or belong to a gap that is not over, ``bad_now`` and ``now`` slots."""

    at: int
    bad: int = 0
    worst: int = 0
    bad_now: int = 0
    now: int = 0


class Tally:
    """Losses, longest gaps and answers to denied probes of slots due from ``begun`` (wall nanoseconds) on."""

    def __init__(self, begun: int) -> None:
        self._begun = begun
        self._counted: dict[int, _Counted] = {}
        self._probes: dict[int, Probe] = {}

    def update(self, collection: Collection, until: int) -> None:
        """Count what was reported since the last time, up to slots due before ``until``."""
        self._probes = collection.probes
        for number, series in collection.series.items():
            counted = self._counted.setdefault(number, _Counted(max(self._begun, series.start)))
            _count(counted, series.window(counted.at, until), denied=self._probes[number].kind.denied)

    def words(self, numbers: Iterable[int]) -> str:
        """The sum of the probes with these numbers: "nothing lost", "12 lost, gap 60 ms, 3 let through"."""
        lost = opened = 0
        worst = 0.0
        for number in numbers:
            if (counted := self._counted.get(number)) is None:
                continue
            probe, bad = self._probes[number], counted.bad + counted.bad_now
            if probe.kind.denied:
                opened += bad
                continue
            lost += bad
            worst = max(worst, max(counted.worst, counted.now) * probe.period / 1e6)
        said = [f"{lost} lost, gap {worst:.0f} ms" if lost else "nothing lost"]
        if opened:
            said.append(f"{opened} let through")
        return ", ".join(said)


def _count(counted: _Counted, part: Series, *, denied: bool) -> None:
    found = gaps(part.values, denied=denied)
    counted.bad_now = counted.now = 0
    counted.at = part.start + len(part.values) * part.period
    if found:
        last = found[-1]
        after = part.values[last.first + last.slots :]
        # What was seen neither well nor bad (the prober was stalled) ends no gap: it may go on behind that.
        if all(value in (INVALID, PENDING) for value in after):
            counted.bad_now, counted.now = last.bad, last.slots
            counted.at = part.start + last.first * part.period
            found = found[:-1]
    counted.bad += sum(gap.bad for gap in found)
    if worst := longest(found):
        counted.worst = max(counted.worst, worst.slots)
