"""What became of each slot of a probe: one 32-bit number a slot, latency in microseconds or a mark. Pure.

A mark says why there is no latency. The same numbers travel from the prober to whoever collects, in chunks.
"""

import base64
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator

import msgspec

PENDING = 0xFFFFFFFF  # no answer yet, and not too late for one
LOST = 0xFFFFFFFE  # no answer in time
REFUSED = 0xFFFFFFFD  # reset, unreachable, prohibited: somebody said no
INVALID = 0xFFFFFFFC  # the prober itself was late: this slot says nothing of the network
_FIRST_MARK = INVALID
LONGEST = _FIRST_MARK - 1  # microseconds; a latency beyond (71 minutes) is cut to it


def answered(value: int) -> bool:
    """Whether a slot's number is a latency."""
    return value < _FIRST_MARK


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive settled slots of one probe, as sent over a log line.

    ``data`` is base64 of zlib of little-endian 32-bit numbers; ``lag`` the longest delay in microseconds
    between an intended and the actual send among them.
    """

    probe: int
    first: int
    data: str
    lag: int = 0


class BadChunk(ValueError):
    """A chunk that cannot be read; the text says what is wrong with it."""


def pack(probe: int, first: int, values: Iterable[int], lag: int = 0) -> Chunk:
    """A chunk of ``values`` that begins at slot ``first``."""
    raw = array("I", values)
    if sys.byteorder == "big":
        raw.byteswap()
    data = base64.b64encode(zlib.compress(raw.tobytes(), 1)).decode()
    return Chunk(probe=probe, first=first, data=data, lag=lag)


def unpack(chunk: Chunk) -> "array[int]":
    """The numbers of a chunk. Raises BadChunk."""
    try:
        raw = zlib.decompress(base64.b64decode(chunk.data, validate=True))
        values = array("I", raw)
    except (ValueError, zlib.error) as bad:
        raise BadChunk(f"chunk of probe {chunk.probe} at slot {chunk.first}: {bad}") from bad
    if sys.byteorder == "big":
        values.byteswap()
    return values


class Series:
    """All slots of one probe known so far. Slot ``n`` was due at ``start + n * period`` (nanoseconds)."""

    def __init__(self, start: int, period: int, values: Iterable[int] = ()) -> None:
        self.start, self.period = start, period
        self.values: array[int] = array("I", values)
        self.lag = 0

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in. A hole before it (a chunk that never came) counts as INVALID. Raises BadChunk."""
        values = unpack(chunk)
        missing = chunk.first - len(self.values)
        if missing < 0:  # sent twice, by a log stream that was opened again
            values = values[-missing:]
        elif missing:
            self.values.extend([INVALID] * missing)
        self.values.extend(values)
        self.lag = max(self.lag, chunk.lag)

    def window(self, begin: int, end: int) -> "Series":
        """The slots due from ``begin`` until before ``end`` (nanoseconds of the same clock)."""
        first = max(0, -(-(begin - self.start) // self.period))
        last = max(first, min(len(self.values), -(-(end - self.start) // self.period)))
        part = Series(self.start + first * self.period, self.period, self.values[first:last])
        part.lag = self.lag
        return part

    def latencies(self) -> Iterator[int]:
        """Microseconds of the answered slots."""
        return (value for value in self.values if value < _FIRST_MARK)
