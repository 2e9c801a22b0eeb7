"""How full the ranges are, and when they will be: figures from values.

The forecast is the line of least squares through what was counted lately. It is a warning, not a promise: it
is given only where there is enough of a past, and growth in it.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from towpath.ipam.allocate import RangeSet, without
from towpath.model.net import Addr, Net

LEVELS = (80, 95, 100)
"""Per cent of a range at which operators are told."""

_SLACK = 5  # a level is left only so many per cent below it: else every pod at the border would be news
_PAST = 24 * 3600.0
_LEAST_PAST = 1800.0
_LEAST_SAMPLES = 4
_FAR = 30 * 24 * 3600.0


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A range set: ``size`` addresses that can be given out, of which ``used`` are leased, ``held`` were
    released a moment ago and come last, ``foreign`` are in use without a lease, ``reserved`` never given out
    unless asked for by name. ``full_in``: seconds until none is left if it goes on like this, None: never, or
    it cannot be told. Of an IPPool, which all nodes share, ``pool`` and ``uid`` say which.
    """

    range: str
    size: int
    used: int = 0
    held: int = 0
    foreign: int = 0
    reserved: int = 0
    full_in: float | None = None
    pool: str = ""
    uid: str = ""

    @property
    def free(self) -> int:
        """What the next pods can have, held ones included."""
        return max(0, self.size - self.used - self.foreign - self.reserved)

    @property
    def percent(self) -> float:
        """How much of it is gone, reserved addresses included: 100 means that no pod can start."""
        return 100.0 * (self.size - self.free) / self.size if self.size else 100.0


Sample = tuple[float, int]
"""Seconds of wall-clock time, and how many addresses were used."""


def counted(
    ranges: RangeSet,
    leased: Collection[Addr],
    held: Collection[Addr],
    foreign: Collection[Addr],
    reserved: tuple[Net, ...] = (),
) -> Usage:
    """The figures of one set. Of what is reserved, what is not in use counts."""

    def inside(addresses: Iterable[Addr], among: RangeSet = ranges) -> int:
        return sum(1 for address in addresses if any(address in one for one in among))

    size, open_ = sum(one.size for one in ranges), without(ranges, reserved)
    strangers = [address for address in foreign if address not in leased]
    used, others = inside(leased), inside(strangers)
    taken_of_reserved = used + others - inside(leased, open_) - inside(strangers, open_)

    return Usage(
        range=", ".join(map(str, ranges)),
        size=size,
        used=used,
        held=inside(held),
        foreign=others,
        reserved=size - sum(one.size for one in open_) - taken_of_reserved,
    )


def exhausted_in(samples: Sequence[Sample], size: int, now: float) -> float | None:
    """Seconds until ``size`` are used, None: too little past, no growth, or more than 30 days."""
    lately = [(at, used) for at, used in samples if now - _PAST <= at <= now]
    if len(lately) < _LEAST_SAMPLES or lately[-1][0] - lately[0][0] < _LEAST_PAST:
        return None
    middle = sum(at for at, _ in lately) / len(lately)
    mean = sum(used for _, used in lately) / len(lately)
    spread = sum((at - middle) ** 2 for at, _ in lately)
    slope = sum((at - middle) * (used - mean) for at, used in lately) / spread
    left = size - lately[-1][1]
    if slope <= 0 or left / slope > _FAR:
        return None
    return max(0.0, left / slope)


def level(usage: Usage, before: int) -> int:
    """The highest of ``LEVELS`` that is reached, 0 for none; ``before`` is what was said last."""
    reached = max((one for one in LEVELS if usage.percent >= one), default=0)
    if reached < before and usage.percent > before - _SLACK:
        return before
    return reached
