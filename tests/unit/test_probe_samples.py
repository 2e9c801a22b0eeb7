"""Slots: when they are due, how they are written down, how they travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe_objects import MS, probe
from towpath.probe.bitmap import Bitmap
from towpath.probe.plan import Kind, spread
from towpath.probe.recording import Recording
from towpath.probe.samples import INVALID, LOST, PENDING, REFUSED, BadChunk, Chunk, Series, pack, unpack
from towpath.probe.schedule import Schedule

VALUES = st.lists(
    st.one_of(st.integers(0, 2_000_000), st.sampled_from([LOST, REFUSED, INVALID])), max_size=300
)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.lists(st.integers(0, 40), max_size=30))
def test_every_slot_comes_once_at_its_own_time_however_late_one_asks(
    periods: list[int], steps: list[int]
) -> None:
    probes = spread(probe(number=n, period=period * MS) for n, period in enumerate(periods))
    schedule, now, seen = Schedule(probes, 1000), 1000, []
    for step in steps:
        now += step * MS
        seen += list(schedule.due(now))
    wanted = {(p.number, at) for p in probes for at in range(1000 + p.phase, now + 1, p.period) if steps}
    assert set(seen) == wanted
    assert len(seen) == len(wanted)
    assert schedule.next_due > now or not steps


@given(st.integers(1, 200))
def test_phases_stay_within_their_period_and_spread(count: int) -> None:
    phases = [p.phase for p in spread(probe(number=n) for n in range(count))]
    assert all(0 <= phase < 5 * MS and phase % MS == 0 for phase in phases)
    assert max(phases.count(phase) for phase in set(phases)) <= count // 5 + 3


@given(VALUES, st.integers(0, 1000))
def test_chunks_come_back_as_they_went(values: list[int], first: int) -> None:
    assert list(unpack(pack(3, first, values))) == values


@pytest.mark.parametrize("data", ["", "!", "AAAA", "eJwDAAAAAAE"])
def test_a_damaged_chunk_is_refused(data: str) -> None:
    with pytest.raises(BadChunk, match="probe 7 at slot 5"):
        unpack(Chunk(probe=7, first=5, data=data))


@given(VALUES, st.lists(st.integers(1, 40), max_size=12), st.data())
def test_a_log_read_twice_gives_the_same_series(
    values: list[int], cuts: list[int], data: st.DataObject
) -> None:
    chunks, at = [], 0
    for size in [*cuts, len(values)]:
        chunks.append(pack(0, at, values[at : at + size]))
        at = min(len(values), at + size)
    again = data.draw(st.integers(0, len(chunks)))
    found = Series(0, 5 * MS)
    for chunk in [*chunks[:again], *chunks]:
        found.add(chunk)
    assert list(found.values) == values


def test_a_chunk_that_never_came_is_a_hole_nobody_saw() -> None:
    found = Series(0, 5 * MS)
    found.add(pack(0, 0, [1, 2]))
    found.add(pack(0, 4, [5]))
    assert list(found.values) == [1, 2, INVALID, INVALID, 5]


@given(VALUES, st.integers(0, 3000), st.integers(0, 3000))
def test_windows_side_by_side_hold_everything_once(values: list[int], cut: int, start: int) -> None:
    whole = Series(start * MS, 5 * MS, values)
    left, right = whole.window(0, cut * MS), whole.window(cut * MS, 1 << 62)
    assert list(left.values) + list(right.values) == values
    assert not right.values or right.start >= cut * MS


@given(st.lists(st.booleans(), max_size=200))
def test_bitmaps_keep_every_slot(flags: list[bool]) -> None:
    bitmap = Bitmap.of(flags)
    assert Bitmap.decode(bitmap.encode(), len(flags)) == bitmap
    assert [bitmap[slot] for slot in range(len(flags))] == flags
    assert bitmap.count() == sum(flags)
    covered = [slot for first, length in bitmap.runs() for slot in range(first, first + length)]
    assert covered == [slot for slot, flag in enumerate(flags) if flag]


def test_a_bitmap_longer_than_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond its length"):
        Bitmap.decode("/w==", 7)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["open", "late", "answer", "refuse", "expire", "ship"]), st.integers(0, 60)),
    max_size=80,
)


@given(ACTIONS)
def test_what_was_shipped_never_changes_and_nothing_is_left_open(actions: list[tuple[str, int]]) -> None:
    recording, now, shipped = Recording(probe(), 0), 0, Series(0, 5 * MS)
    opened = 0
    for action, amount in actions:
        match action:
            case "open" | "late":
                now = max(now, recording.intended(opened))
                recording.open(0 if action == "open" else 6 * MS)
                opened += 1
            case "answer":
                recording.answer(opened - 1 - amount, now)
            case "refuse":
                recording.refuse(opened - 1 - amount)
            case "expire":
                now += amount * 50 * MS
                recording.expire(now)
            case "ship":
                if chunk := recording.chunk(least=1):
                    shipped.add(chunk)
        assert PENDING not in shipped.values
        assert list(shipped.values) == list(recording.values)[: len(shipped.values)]
    recording.close()
    if chunk := recording.chunk(least=1):
        shipped.add(chunk)
    assert list(shipped.values) == list(recording.values)
    assert len(shipped.values) == opened


def test_latency_counts_from_the_intended_time_and_a_late_send_is_no_loss() -> None:
    recording = Recording(probe(), 1000 * MS)
    recording.open(3 * MS)
    recording.answer(0, 1004 * MS)
    recording.open(5 * MS + 1)
    recording.answer(1, 1011 * MS)
    recording.expire(1 << 60)
    assert list(recording.values) == [4000, INVALID]


def test_an_answer_after_the_time_out_comes_too_late() -> None:
    recording = Recording(probe(Kind.CONNECT), 0)
    recording.open(0)
    recording.expire(899 * MS)
    assert recording.oldest_pending() == 0
    recording.expire(900 * MS)
    recording.answer(0, 901 * MS)
    assert list(recording.values) == [LOST]
