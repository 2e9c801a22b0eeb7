"""Maintenance windows, over midnight, over the week's end and over the hour that summer time takes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.upgrade.window import Window, WindowError


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "now", "opens"),
    [
        ("Sat 22:00-04:00 UTC", "2026-11-28T22:00", "2026-11-28T22:00"),
        ("Sat 22:00-04:00 UTC", "2026-11-29T03:59", "2026-11-29T03:59"),
        ("Sat 22:00-04:00 UTC", "2026-11-29T04:00", "2026-12-05T22:00"),
        ("Sat 22:00-04:00 UTC", "2026-11-28T21:59", "2026-11-28T22:00"),
        ("sun,Mon-tue 01:00-05:00 Europe/Berlin", "2026-11-25T12:00", "2026-11-29T00:00"),
        ("Fri-Mon 01:00-02:00 UTC", "2026-11-26T12:00", "2026-11-27T01:00"),
        ("22:00-04:00 UTC", "2026-11-26T12:00", "2026-11-26T22:00"),
        ("00:00-24:00 UTC", "2026-11-26T12:34", "2026-11-26T12:34"),
        ("Sun 01:00-05:00 Europe/Berlin", "2026-03-29T00:30", "2026-03-29T00:30"),
    ],
)
def test_when_it_opens(text: str, now: str, opens: str) -> None:
    assert Window.parse(text).opens(at(now)) == at(opens)


@pytest.mark.parametrize(
    "text",
    ["", "Sat", "Sat 22:00 UTC", "Foo 22:00-04:00 UTC", "22:00-25:00 UTC", "22:00-04:00 Nowhere", "22-4 UTC"],
)
def test_what_is_no_window_says_how_to_write_one(text: str) -> None:
    with pytest.raises(WindowError, match="write it as"):
        Window.parse(text)


days = st.sets(st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]), min_size=1)


@given(days, st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 2_000_000_000))
def test_it_opens_within_a_week_and_is_open_then(chosen: set[str], begin: int, end: int, now: int) -> None:
    text = f"{','.join(sorted(chosen))} {begin // 60}:{begin % 60:02}-{end // 60}:{end % 60:02} UTC"
    window = Window.parse(text)
    opens = window.opens(now)
    assert now <= opens <= now + 8 * 86400 and window.opens(opens) == opens
    if opens > now:
        assert window.opens(opens - 1) == opens, "it was not open a second before"
