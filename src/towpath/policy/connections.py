"""Sets of connections as values: equal sets are equal values; union, intersection and difference are exact.

A set has, for each protocol, all of it, nothing, or an area: of source ports by destination ports for TCP,
UDP and SCTP, of types by codes for ICMP and ICMPv6. Other protocols have no parts.
"""

from bisect import bisect
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from towpath.policy.ir import ICMP, ICMPV6, PORT_PROTOCOLS, SCTP, TCP, UDP, UDPLITE

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, sorted, and with a gap between any two."""

Area = tuple[tuple[Ranges, Ranges], ...]
"""(first, second) pairs, sorted: of any two, ``first`` are disjoint and ``second`` differ; none is empty."""

EVERY_PROTOCOL: Final = (1 << 256) - 1
LAST: Final = {**dict.fromkeys(PORT_PROTOCOLS, 65535), ICMP: 255, ICMPV6: 255}
_NAMES: Final = {TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMPV6: "icmpv6", UDPLITE: "udplite"}


class Connections(msgspec.Struct, frozen=True):
    """``whole``: bit N set if all of protocol N. ``parts``: of those of which there is some but not all, by
    protocol number.
    """

    whole: int = 0
    parts: tuple[tuple[int, Area], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.whole or self.parts)

    def __or__(self, other: "Connections") -> "Connections":
        return _combine(self, other, self.whole | other.whole, union)

    def __and__(self, other: "Connections") -> "Connections":
        return _combine(self, other, self.whole & other.whole, intersection)

    def __sub__(self, other: "Connections") -> "Connections":
        return _combine(self, other, self.whole & ~other.whole, difference)

    def area(self, protocol: int) -> Area:
        """What there is of a protocol that has parts."""
        if self.whole >> protocol & 1:
            return _full(protocol)
        return dict(self.parts).get(protocol, ())

    def contains(self, protocol: int, first: int = 0, second: int = 0) -> bool:
        """``first`` and ``second``: source and destination port, or type and code."""
        if self.whole >> protocol & 1:
            return True
        return any(_has(firsts, first) and _has(seconds, second) for firsts, seconds in self.area(protocol))

    def __str__(self) -> str:
        if self.whole.bit_count() > 128:
            rest = ALL - self
            return f"all but {rest}" if rest else "all"
        whole = [(protocol, "") for protocol in range(256) if self.whole >> protocol & 1]
        parts = [(protocol, f" {_area_text(protocol, area)}") for protocol, area in self.parts]
        named = [
            f"{_NAMES.get(number, f'protocol {number}')}{text}" for number, text in sorted(whole + parts)
        ]
        return "; ".join(named) or "none"


NOTHING: Final = Connections()
ALL: Final = Connections(EVERY_PROTOCOL)


def protocol_text(protocol: int) -> str:
    """``tcp``, ``protocol 47``."""
    return _NAMES.get(protocol, f"protocol {protocol}")


def part(protocol: int, first: Ranges, second: Ranges) -> Connections:
    """Some of a protocol that has parts: source by destination ports, or types by codes."""
    if not first or not second:
        return NOTHING
    if ((first, second),) == _full(protocol):
        return Connections(1 << protocol)
    return Connections(0, ((protocol, ((first, second),)),))


def everything(protocol: int) -> Ranges:
    """All ports, or all types or codes."""
    return ((0, LAST[protocol]),)


def normalised(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same numbers: overlapping and adjacent ones merged; one that ends before it begins has none."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def union(a: Ranges, b: Ranges) -> Ranges:
    """In either."""
    return normalised(a + b) if a and b else a or b


def intersection(a: Ranges, b: Ranges) -> Ranges:
    """In both."""
    found = []
    i = j = 0
    while i < len(a) and j < len(b):
        first, last = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if first <= last:
            found.append((first, last))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def difference(a: Ranges, b: Ranges) -> Ranges:
    """In ``a`` and not in ``b``."""
    found = []
    for start, last in a:
        first = start
        for taken_first, taken_last in b:
            if taken_last < first or taken_first > last:
                continue
            if taken_first > first:
                found.append((first, taken_first - 1))
            first = taken_last + 1
        if first <= last:
            found.append((first, last))
    return tuple(found)


def _combine(
    a: Connections, b: Connections, whole: int, operation: Callable[[Ranges, Ranges], Ranges]
) -> Connections:
    """``whole`` as the operation gives it for protocols without parts; the others one by one."""
    if not a.parts and not b.parts:
        return Connections(whole)
    parts = []
    for protocol in sorted({protocol for protocol, _ in (*a.parts, *b.parts)}):
        whole &= ~(1 << protocol)
        area = _combine_areas(protocol, a.area(protocol), b.area(protocol), operation)
        if area == _full(protocol):
            whole |= 1 << protocol
        elif area:
            parts.append((protocol, area))
    return Connections(whole, tuple(parts))


def _combine_areas(protocol: int, a: Area, b: Area, operation: Callable[[Ranges, Ranges], Ranges]) -> Area:
    """Strip by strip of equal ``first``; strips that come to the same are one again."""
    strips: dict[Ranges, Ranges] = {}
    for first_a, second_a in _covering(protocol, a):
        for first_b, second_b in _covering(protocol, b):
            first = intersection(first_a, first_b)
            second = operation(second_a, second_b) if first else ()
            if second:
                strips[second] = union(strips.get(second, ()), first)
    return tuple(sorted((first, second) for second, first in strips.items()))


def _covering(protocol: int, area: Area) -> Area:
    """The area's strips, and what they leave of ``first`` with nothing in it."""
    rest = everything(protocol)
    for first, _ in area:
        rest = difference(rest, first)
    return (*area, (rest, ())) if rest else area


def _full(protocol: int) -> Area:
    last = LAST.get(protocol)
    return ((((0, last),), ((0, last),)),) if last is not None else ()


def _has(ranges: Ranges, number: int) -> bool:
    at = bisect(ranges, (number, 1 << 16)) - 1
    return at >= 0 and ranges[at][1] >= number


def _area_text(protocol: int, area: Area) -> str:
    """``80,443``; ``80 from 1-1023``; of ICMP ``8/0``."""
    texts = []
    for first, second in area:
        if protocol in PORT_PROTOCOLS:
            source = "" if first == everything(protocol) else f" from {_ranges_text(first)}"
            texts.append(f"{_ranges_text(second)}{source}")
        else:
            code = "" if second == everything(protocol) else f"/{_ranges_text(second)}"
            texts.append(f"{_ranges_text(first)}{code}")
    return " or ".join(texts)


def _ranges_text(ranges: Ranges) -> str:
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
