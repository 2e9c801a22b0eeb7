"""Denied UDP, which must not be asked too early.

A datagram that is answered before the policy is there leaves a conntrack entry for half a minute, and a later
one that happens to have the same ports (masquerading draws them at random) would pass as established: a
fail-open that is none. So the denied port is tried over TCP first, whose entries do not outlive their FIN;
UDP, to the same port of the same process, begins when TCP has been refused for a second.
"""

from towpath.probe.ask import Loop
from towpath.probe.ask_udp import FreshUdp
from towpath.probe.recording import Recording
from towpath.probe.samples import INVALID, PENDING, answered

_SILENT = 1_000_000_000


class GatedUdp(FreshUdp):
    """A fresh socket a question; slots are invalid until ``sibling`` was answered once and then no more."""

    def __init__(self, loop: Loop, recording: Recording, sibling: Recording | None) -> None:
        super().__init__(loop, recording)
        self._sibling = sibling
        self._open = sibling is None

    def send(self, slot: int) -> None:
        """Ask, if the gate is open."""
        if self._open:
            super().send(slot)
        else:
            self.recording.invalidate(slot)

    def sweep(self, now: int) -> None:
        """Look at the gate; then as every asker."""
        if not self._open and self._sibling is not None:
            self._open = silenced(self._sibling)
        super().sweep(now)


def silenced(sibling: Recording) -> bool:
    """Whether it was answered once, and nothing of its last settled second is an answer."""
    settled = [value for value in sibling.values if value not in (PENDING, INVALID)]
    last = settled[-max(1, _SILENT // sibling.probe.period) :]
    was_answered = any(answered(value) for value in settled)
    return was_answered and not any(answered(value) for value in last)
