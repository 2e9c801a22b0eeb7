"""Figures, gaps, levels: what is made of slots."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe_objects import GOOD, probe, run_of, series
from towpath.probe.account import Total, account, figures
from towpath.probe.gaps import Gap, gaps, longest
from towpath.probe.histogram import Histogram
from towpath.probe.levels import Level, judge
from towpath.probe.plan import Kind
from towpath.probe.samples import INVALID, LOST, REFUSED

SLOTS = st.lists(st.sampled_from([GOOD, LOST, REFUSED, INVALID]), max_size=120)
MEANING = {GOOD: "g", LOST: "x", REFUSED: "x", INVALID: "i"}


@given(SLOTS, st.booleans())
def test_gaps_are_what_a_reader_of_the_slots_would_mark(values: list[int], denied: bool) -> None:
    text = "".join(MEANING[value] for value in values)
    bad, good = ("g", "x") if denied else ("x", "g")
    found = gaps(values, denied=denied)
    assert sum(gap.bad for gap in found) == text.count(bad)
    for gap in found:
        stretch = text[gap.first : gap.first + gap.slots]
        assert stretch[0] == stretch[-1] == bad
        assert good not in stretch
        assert gap.bad == stretch.count(bad)
    ends = [gap.first + gap.slots for gap in found]
    assert all(good in text[end : after.first] for end, after in zip(ends, found[1:], strict=False))


def test_a_stalled_prober_neither_makes_nor_ends_a_gap() -> None:
    assert gaps([GOOD, INVALID, INVALID, GOOD]) == ()
    assert gaps([GOOD, LOST, INVALID, LOST, GOOD]) == (Gap(1, 3, 2),)
    assert longest(()) is None


def test_udp_gap_is_slots_times_period() -> None:
    seen = figures(probe(), run_of(100, 20, 100))
    assert (seen.sent, seen.lost, seen.gap_ms, seen.gaps) == (220, 20, 100.0, 1)


def test_denied_probes_count_answers() -> None:
    kind = Kind.DENY_TCP
    seen = figures(probe(kind), series([LOST, REFUSED, GOOD, GOOD, LOST, INVALID], kind))
    assert (seen.sent, seen.invalid, seen.lost, seen.opened, seen.fail_open_ms) == (5, 1, 0, 2, 100.0)


def test_a_path_adds_counts_and_takes_the_worst_of_times() -> None:
    together = account(
        [
            (probe(number=0), run_of(10, 4, 10)),
            (probe(Kind.CONNECT, 1), run_of(5, 2, 5, Kind.CONNECT)),
            (probe(Kind.ECHO, 2), series([GOOD, 70_000], Kind.ECHO)),
        ]
    )
    assert (together.lost, together.failed_connects, together.gap_ms) == (6, 2, 40.0)
    assert together.stall_ms == pytest.approx(70, rel=0.01)


@given(st.lists(st.integers(1, 50_000_000), min_size=1, max_size=200), st.integers(0, 199))
def test_histograms_merge_and_travel(values: list[int], cut: int) -> None:
    whole, left = Histogram(values), Histogram(values[:cut])
    left.merge(Histogram.decode(Histogram(values[cut:]).encode()))
    assert len(whole) == len(left) == len(values)
    for percent in (50, 99.9, 100):
        assert whole.percentile(percent) == left.percentile(percent)
    assert whole.percentile(100) == pytest.approx(max(values), rel=0.002)


def test_what_is_no_histogram_is_refused() -> None:
    with pytest.raises(ValueError, match="no HdrHistogram"):
        Histogram.decode("HISTFAAA")
    assert Histogram().percentile(99) == 0


CONTROL = Total(sent=1000, p999_ms=2.0)
FINE = Total(sent=1000, p999_ms=3.0)


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({}, Level.H0),
        ({"p999_ms": 22.0}, Level.H0),
        ({"p999_ms": 22.1}, Level.H1),
        ({"lost": 1, "gap_ms": 5.0}, Level.H1),
        ({"lost": 40, "gap_ms": 199.0, "stall_ms": 499.0}, Level.H1),
        ({"lost": 40, "gap_ms": 200.0}, Level.H2),
        ({"lost": 1, "failed_connects": 1, "gap_ms": 20.0}, Level.H2),
        ({"p999_ms": 400.0, "stall_ms": 500.0}, Level.H2),
        ({"lost": 400, "gap_ms": 1000.0}, Level.H2),
        ({"lost": 400, "gap_ms": 1005.0}, Level.DISRUPTIVE),
        ({"opened": 1, "fail_open_ms": 50.0}, Level.DISRUPTIVE),
        ({"invalid": 11}, Level.UNKNOWN),
        ({"invalid": 10}, Level.H0),
        ({"sent": 0}, Level.UNKNOWN),
    ],
)
def test_levels_are_those_of_the_design(change: dict[str, float], level: Level) -> None:
    judged = judge(msgspec.structs.replace(FINE, **change), CONTROL)
    assert judged.level is level
    assert bool(judged.why) is (level is not Level.H0)


def test_without_a_control_window_latency_is_not_judged() -> None:
    judged = judge(msgspec.structs.replace(FINE, p999_ms=900.0), None)
    assert (judged.level, judged.added_ms) == (Level.H0, None)


def test_a_budget_is_the_operators() -> None:
    seen = msgspec.structs.replace(FINE, lost=900, gap_ms=4500.0)
    assert judge(seen, CONTROL, budget_ms=5000).level is Level.H2
