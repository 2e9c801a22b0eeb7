"""A maintenance window, such as ``Sat 22:00-04:00 UTC``: when a node may be begun. Pure."""

import re
from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TEXT = re.compile(
    r"^(?:(?P<days>[A-Za-z,-]+)\s+)?(?P<from>\d\d?:\d\d)\s*-\s*(?P<to>\d\d?:\d\d)\s+(?P<zone>\S+)$"
)
_HOW = "write it as `Sat 22:00-04:00 UTC`, `Mon-Fri 01:00-05:00 Europe/Berlin` or `22:00-04:00 UTC`"


class WindowError(ValueError):
    """It cannot be read; the message says how to write one."""


class Window(msgspec.Struct, frozen=True):
    """Open on ``days`` (0 Monday) from ``begin`` for ``length`` minutes; a day's window may end on the next.

    ``begin``: minutes after midnight in ``zone``, by the clock on the wall (also when it is set forward).
    """

    days: frozenset[int]
    begin: int
    length: int
    zone: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises WindowError."""
        found = _TEXT.match(text.strip())
        if found is None:
            raise WindowError(f"{text!r} is no window: {_HOW}")
        begin, end = _minutes(found["from"]), _minutes(found["to"])
        try:
            ZoneInfo(found["zone"])
        except (ZoneInfoNotFoundError, ValueError, OSError) as e:
            raise WindowError(f"there is no time zone {found['zone']!r}: {_HOW}") from e
        length = (end - begin) % (24 * 60) or 24 * 60
        return cls(_days(found["days"] or ""), begin, length, found["zone"])

    def opens(self, now: float) -> float:
        """``now`` (seconds since 1970) while it is open, else when it opens next."""
        zone = ZoneInfo(self.zone)
        today = datetime.fromtimestamp(now, zone).date()
        for ahead in range(-1, 9):
            day = today + timedelta(days=ahead)
            if day.weekday() not in self.days:
                continue
            midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
            begin = (midnight + timedelta(minutes=self.begin)).astimezone(UTC).timestamp()
            if begin <= now < begin + self.length * 60:
                return now
            if begin > now:
                return begin
        raise AssertionError("a week has every day")


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if hours > 24 or minutes > 59 or hours * 60 + minutes > 24 * 60:
        raise WindowError(f"there is no time {text}: {_HOW}")
    return hours * 60 + minutes


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        try:
            begin, end = _day(first), _day(last or first)
        except ValueError as e:
            raise WindowError(f"there is no day {part!r}: {_HOW}") from e
        found |= {day % 7 for day in range(begin, end + 1 + 7 * (end < begin))}
    return frozenset(found or range(7))


def _day(text: str) -> int:
    return _DAYS.index(text.capitalize()[:3])
