"""Connection sets against sets of tuples: every operation exact, equal sets equal values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.policy.connections import (
    ALL,
    LAST,
    NOTHING,
    Connections,
    difference,
    everything,
    intersection,
    normalised,
    part,
    union,
)
from towpath.policy.ir import ICMP, TCP, UDP, UDPLITE

RANGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4).map(normalised)
# Where an answer can change, and both ends.
POINTS = (*range(14), 255, 65535)


@st.composite
def connections(draw: st.DrawFn) -> Connections:
    found = Connections(draw(st.sampled_from((0, 1 << 47, 1 << TCP, ALL.whole))))
    for _ in range(draw(st.integers(0, 3))):
        protocol = draw(st.sampled_from((TCP, UDP, ICMP)))
        whole = st.just(everything(protocol))
        other = part(protocol, draw(st.one_of(whole, RANGES)), draw(st.one_of(whole, RANGES)))
        found = found - other if draw(st.booleans()) else found | other
    return found


def members(some: Connections) -> set[tuple[int, int, int]]:
    return {
        (protocol, first, second)
        for protocol in (TCP, UDP, ICMP)
        for first in POINTS
        for second in POINTS
        if first <= LAST[protocol] and second <= LAST[protocol] and some.contains(protocol, first, second)
    } | {(number, 0, 0) for number in (47, UDPLITE, 0, 255) if some.contains(number)}


def points(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}


@given(RANGES, RANGES)
def test_ranges(a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]) -> None:
    for operation, expected in (
        (union, points(a) | points(b)),
        (intersection, points(a) & points(b)),
        (difference, points(a) - points(b)),
    ):
        found = operation(a, b)
        assert points(found) == expected
        assert found == normalised(found)


@given(connections(), connections())
def test_operations_are_those_of_sets(a: Connections, b: Connections) -> None:
    assert members(a | b) == members(a) | members(b)
    assert members(a & b) == members(a) & members(b)
    assert members(a - b) == members(a) - members(b)


@given(connections(), connections())
def test_equal_sets_are_equal_values(a: Connections, b: Connections) -> None:
    assert (a - b) | (a & b) == a
    assert (a | b) - b == a - b
    assert ALL - (ALL - a) == a
    assert a | b == b | a
    assert hash((a | b) - b) == hash(a - b)
    assert (a == b) == (members(a) == members(b))


@given(connections())
def test_nothing_and_all(a: Connections) -> None:
    assert a | NOTHING == a == a & ALL
    assert a & NOTHING == NOTHING == a - a
    assert a | ALL == ALL
    assert bool(a) == bool(members(a))


def test_what_covers_a_protocol_is_the_whole_of_it() -> None:
    low, high = part(TCP, ((0, 65535),), ((0, 79),)), part(TCP, ((0, 65535),), ((80, 65535),))
    assert low | high == Connections(1 << TCP)
    assert part(ICMP, everything(ICMP), everything(ICMP)) == Connections(1 << ICMP)
    left, right = part(UDP, ((0, 9),), everything(UDP)), part(UDP, ((10, 65535),), everything(UDP))
    assert left | right == Connections(1 << UDP)


def test_of_nothing_is_nothing() -> None:
    assert part(TCP, (), ((80, 80),)) == NOTHING == part(TCP, everything(TCP), ())


@pytest.mark.parametrize(
    ("some", "text"),
    [
        (ALL, "all"),
        (NOTHING, "none"),
        (Connections(1 << TCP | 1 << 47), "tcp; protocol 47"),
        (part(TCP, everything(TCP), ((80, 81), (443, 443))), "tcp 80-81,443"),
        (part(TCP, ((1, 1023),), ((80, 80),)), "tcp 80 from 1-1023"),
        (
            part(ICMP, ((8, 8),), ((0, 0),)) | part(ICMP, ((3, 3),), everything(ICMP)),
            "icmp 3 or 8/0",
        ),
        (ALL - part(UDP, everything(UDP), ((53, 53),)), "all but udp 53"),
    ],
)
def test_text(some: Connections, text: str) -> None:
    assert str(some) == text
