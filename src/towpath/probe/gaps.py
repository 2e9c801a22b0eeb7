"""Gaps: contiguous slots in which nothing went as it should. Pure."""

from collections.abc import Sequence

import msgspec

from towpath.probe.samples import INVALID, PENDING, answered


class Gap(msgspec.Struct, frozen=True):
    """From the slot ``first`` over ``slots`` slots, of which ``bad`` are known to be bad.

    The others within it are INVALID: the prober was not looking, between two bad slots.
    """

    first: int
    slots: int
    bad: int

    def milliseconds(self, period: int) -> float:
        """How long it lasted: slots times the period (nanoseconds), the precision of the probe."""
        return self.slots * period / 1e6


def gaps(values: Sequence[int], *, denied: bool = False) -> tuple[Gap, ...]:
    """All gaps in a probe's slots, in order.

    Bad is a slot without an answer; for ``denied`` probes one with an answer. INVALID (and PENDING) slots
    neither begin nor end a gap; between two bad slots they belong to it, since nobody saw it mended.
    """
    if not values or (min(values) >= INVALID if denied else max(values) < INVALID):
        return ()  # all is well, as nearly always: told at the speed of C
    found: list[Gap] = []
    first = last = bad = -1
    for slot, value in enumerate(values):
        if value in (INVALID, PENDING):
            continue
        if answered(value) is denied:
            if first < 0:
                first, bad = slot, 0
            last, bad = slot, bad + 1
        elif first >= 0:
            found.append(Gap(first, last - first + 1, bad))
            first = -1
    if first >= 0:
        found.append(Gap(first, last - first + 1, bad))
    return tuple(found)


def longest(found: Sequence[Gap]) -> Gap | None:
    """The longest, the first of equals; None of none."""
    return max(found, key=lambda gap: gap.slots, default=None)
