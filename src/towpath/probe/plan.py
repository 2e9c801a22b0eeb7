"""What is probed, as values: the probes of one prober, and the timing of each kind. Pure.

A probe is one kind of question on one path in one address family, asked at times fixed in advance
(open loop): slot ``n`` is due at ``start + phase + n * period``, whether or not slot ``n-1`` was answered.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

MS = 1_000_000  # nanoseconds
GRID = MS  # send times lie on a grid of one millisecond, so that one wake-up serves several probes


class Kind(StrEnum):
    """The six kinds of question; the last comes as TCP and UDP.

    UDP keeps one socket and so one 5-tuple: it sees the data path alone, conntrack remembers it. UDP_FRESH
    and CONNECT begin a new flow each time: they see NAT, service and policy rules. ECHO is a long-lived
    connection, which shows resets and stalls. The DENY kinds must never be answered.
    """

    UDP = "udp"
    UDP_FRESH = "udp-fresh"
    ECHO = "tcp-echo"
    CONNECT = "tcp-connect"
    DNS = "dns"
    DENY_TCP = "deny-tcp"
    DENY_UDP = "deny-udp"

    @property
    def denied(self) -> bool:
        """Whether an answer is the fault."""
        return self in (Kind.DENY_TCP, Kind.DENY_UDP)


# Periods in nanoseconds. What the shortest gap is that can be seen is the period of the kind.
PERIODS: dict[Kind, int] = {
    Kind.UDP: 5 * MS,
    Kind.UDP_FRESH: 20 * MS,
    Kind.ECHO: 10 * MS,
    Kind.CONNECT: 20 * MS,
    Kind.DNS: 50 * MS,
    Kind.DENY_TCP: 50 * MS,
    Kind.DENY_UDP: 50 * MS,
}
# How long an answer is waited for. CONNECT: less than the second after which the kernel repeats a lost SYN
# (RFC 6298 §2.1), so that a repetition never turns a lost SYN into a slow success. ECHO: TCP repeats by
# itself; the answer that comes late is a stall, and only one that never comes is a loss.
TIMEOUTS: dict[Kind, int] = {
    Kind.UDP: 1000 * MS,
    Kind.UDP_FRESH: 1000 * MS,
    Kind.ECHO: 5000 * MS,
    Kind.CONNECT: 900 * MS,
    Kind.DNS: 1000 * MS,
    Kind.DENY_TCP: 900 * MS,
    Kind.DENY_UDP: 900 * MS,
}


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One probe. ``path`` in words ("pod → pod, cross node"); ``period`` and ``phase`` in nanoseconds.

    ``number`` is unique in a run; ``name`` is asked for by DNS probes; ``address`` is literal, never a name.
    ``fills_mtu`` (UDP_FRESH): the question is a packet as long as the path's MTU, not to be fragmented.
    """

    number: int
    kind: Kind
    path: str
    family: Literal[4, 6]
    address: str
    port: int
    period: int
    phase: int = 0
    timeout: int = 1000 * MS
    name: str = ""
    fills_mtu: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one prober does. ``seconds`` is the most it runs; a signal ends it earlier."""

    prober: str
    seconds: float
    probes: tuple[Probe, ...]


def spread(probes: Iterable[Probe]) -> tuple[Probe, ...]:
    """Phases on the grid so that few probes are due at the same moment. Numbers and order are kept.

    Steps of the golden ratio fill a period evenly however many probes share it.
    """
    result = []
    for index, probe in enumerate(probes):
        slots = max(1, probe.period // GRID)
        phase = int(index * 0.6180339887498949 % 1.0 * slots) * GRID
        result.append(msgspec.structs.replace(probe, phase=phase))
    return tuple(result)
