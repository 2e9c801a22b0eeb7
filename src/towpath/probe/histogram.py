"""Latency histograms: HdrHistogram, three significant digits, 1 µs to 60 s, in its own exchange format.

The format is HdrHistogram's V2 (compressed, base64), readable by its tools in any language.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

HIGHEST = 60_000_000  # microseconds; what takes longer counts as this

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


class Histogram:
    """Counts of latencies in microseconds."""

    def __init__(self, latencies: Iterable[int] = (), *, _hdr: Any = None) -> None:
        if _hdr is None:
            from hdrh.histogram import HdrHistogram  # imported late: probers in pods do without

            _hdr = HdrHistogram(1, HIGHEST, 3)
        self._hdr = _hdr
        for value, count in Counter(latencies).items():
            self._hdr.record_value(min(max(value, 1), HIGHEST), count)

    def __len__(self) -> int:
        return int(self._hdr.get_total_count())

    def percentile(self, percent: float) -> int:
        """The value in microseconds at or below which ``percent`` of all lie; 0 of none."""
        return int(self._hdr.get_value_at_percentile(percent)) if len(self) else 0

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another."""
        if len(other):
            self._hdr.add(other._hdr)

    def encode(self) -> str:
        """HdrHistogram V2, zlib, base64."""
        return bytes(self._hdr.encode()).decode()

    @staticmethod
    def decode(text: str) -> "Histogram":
        """The reverse. Raises ValueError on what is no such text."""
        from hdrh.histogram import HdrHistogram

        try:
            return Histogram(_hdr=HdrHistogram.decode(text.encode()))
        except Exception as bad:  # the library raises half a dozen kinds, zlib's among them
            raise ValueError(f"no HdrHistogram: {bad}") from bad
