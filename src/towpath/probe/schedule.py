"""Send times, fixed in advance. Pure: the clock is an argument.

Times are nanoseconds of one monotonic clock.
"""

import heapq
from collections.abc import Iterable, Iterator

from towpath.probe.plan import Probe


class Schedule:
    """The merged timetable of many probes from ``start`` on."""

    def __init__(self, probes: Iterable[Probe], start: int) -> None:
        self._heap = [(start + probe.phase, probe.number, probe.period) for probe in probes]
        heapq.heapify(self._heap)

    @property
    def next_due(self) -> int:
        """When something is due next. Raises IndexError when there are no probes at all."""
        return self._heap[0][0]

    def due(self, now: int) -> Iterator[tuple[int, int]]:
        """Take what is due at ``now``: the probe's number and the intended time, in order of time.

        Slots that were missed come as well, each at its own intended time: nothing is skipped silently.
        """
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, number, period = heap[0]
            heapq.heapreplace(heap, (at + period, number, period))
            yield number, at
