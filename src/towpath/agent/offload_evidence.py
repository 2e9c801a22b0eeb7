"""When is transmit checksum offload broken? The verdict on one peer, from what came back. Pure.

Two kinds of datagram go the same way: *plain* ones, whose checksum the kernel leaves to the device, and
*control* ones, whose checksum it computes itself. Only if every control of a size comes back and no plain
one of that size ever does is offload to blame; a lost packet, a peer that is down, a firewall or a cut line
take both kinds alike and prove nothing.
"""

from typing import Literal

import msgspec

Verdict = Literal["works", "broken", "inconclusive"]
ROUNDS = 4


class Tally(msgspec.Struct):
    """Of one payload size: datagrams sent and answered, by kind."""

    control_sent: int = 0
    control_back: int = 0
    plain_sent: int = 0
    plain_back: int = 0


class Evidence:
    """Counts of one probe of one peer, by payload size."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.tallies = {size: Tally() for size in sizes}

    def sent(self, size: int, *, control: bool) -> None:
        """A datagram left."""
        tally = self.tallies[size]
        if control:
            tally.control_sent += 1
        else:
            tally.plain_sent += 1

    def answered(self, size: int, *, control: bool) -> None:
        """Its answer came."""
        tally = self.tallies[size]
        if control:
            tally.control_back += 1
        else:
            tally.plain_back += 1

    def works(self) -> bool:
        """Plain datagrams of every size have come back: no more rounds are needed."""
        return all(t.plain_back for t in self.tallies.values())

    def verdict(self) -> Verdict:
        """The conclusion so far; "broken" needs all ``ROUNDS`` of a size, without a single exception."""
        if self.works():
            return "works"
        for tally in self.tallies.values():
            complete = tally.control_sent >= ROUNDS and tally.plain_sent >= ROUNDS
            if complete and tally.control_back == tally.control_sent and tally.plain_back == 0:
                return "broken"
        return "inconclusive"
