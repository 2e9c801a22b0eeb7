"""What one probe has seen so far: slots as they are sent, answered and settled. Pure.

Slots settle in order: chunks hold only slots that can no longer change.
"""

from array import array

from towpath.probe.plan import Probe
from towpath.probe.samples import INVALID, LONGEST, LOST, PENDING, REFUSED, Chunk, pack

CHUNK = 100  # slots; half a second of the fastest probe


class Recording:
    """The slots of ``probe``, the first due at ``start`` (monotonic nanoseconds)."""

    def __init__(self, probe: Probe, start: int) -> None:
        self.probe, self.start = probe, start + probe.phase
        self.values: array[int] = array("I")
        self._settled = self._shipped = 0
        self._lag = 0

    def intended(self, slot: int) -> int:
        """When a slot was due."""
        return self.start + slot * self.probe.period

    def open(self, lag: int) -> int:
        """The next slot, sent ``lag`` nanoseconds late; returns its number.

        A send more than one period late is INVALID: the prober was stalled, and asks nothing in that slot
        (rather than asking for all missed ones in a burst). The caller must not send then.
        """
        self._lag = max(self._lag, lag)
        self.values.append(INVALID if lag > self.probe.period else PENDING)
        return len(self.values) - 1

    def answer(self, slot: int, at: int) -> None:
        """An answer to ``slot`` that came ``at``; answers to settled slots (late, twice) change nothing."""
        if 0 <= slot < len(self.values) and self.values[slot] == PENDING:
            self.values[slot] = min(max(0, at - self.intended(slot)) // 1000, LONGEST)

    def refuse(self, slot: int) -> None:
        """Somebody said no."""
        self._mark(slot, REFUSED)

    def lose(self, slot: int) -> None:
        """It will not be answered."""
        self._mark(slot, LOST)

    def invalidate(self, slot: int) -> None:
        """What became of it cannot be known: the prober was not there when it was decided."""
        self._mark(slot, INVALID)

    def _mark(self, slot: int, mark: int) -> None:
        if 0 <= slot < len(self.values) and self.values[slot] == PENDING:
            self.values[slot] = mark

    def expire(self, now: int) -> None:
        """Slots whose time is up are LOST; to be called after everything that arrived was read."""
        values, settled, count = self.values, self._settled, len(self.values)
        timeout = self.probe.timeout
        while settled < count:
            if values[settled] == PENDING:
                if self.intended(settled) + timeout > now:
                    break
                values[settled] = LOST
            settled += 1
        self._settled = settled

    def oldest_pending(self) -> int | None:
        """The first slot that still waits for an answer."""
        for slot in range(self._settled, len(self.values)):
            if self.values[slot] == PENDING:
                return slot
        return None

    def chunk(self, *, least: int = CHUNK) -> Chunk | None:
        """Settled slots not shipped yet, if there are at least so many."""
        if self._settled - self._shipped < max(1, least):
            return None
        first, self._shipped = self._shipped, self._settled
        chunk = pack(self.probe.number, first, self.values[first : self._settled], self._lag // 1000)
        self._lag = 0
        return chunk

    def close(self) -> None:
        """The end: what still waits is INVALID, since nobody waits for it any longer."""
        for slot in range(self._settled, len(self.values)):
            self.invalidate(slot)
        self._settled = len(self.values)
