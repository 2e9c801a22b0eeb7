"""Figures of ranges, the forecast, and when operators are told."""

from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.agent.ipam_events import IpamEvents
from towpath.ipam.allocate import make_range
from towpath.ipam.usage import LEVELS, Usage, counted, exhausted_in, level
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import EVENTS

RANGES = (make_range(ip_network("10.42.0.0/28")),)  # 13 addresses


def test_what_is_counted() -> None:
    leased = [ip_address(f"10.42.0.{n}") for n in (2, 3)] + [ip_address("10.9.9.9")]
    held, foreign = [ip_address("10.42.0.4")], [ip_address("10.42.0.3"), ip_address("10.42.0.5")]
    usage = counted(RANGES, leased, held, foreign)
    assert (usage.size, usage.used, usage.held, usage.foreign, usage.free) == (13, 2, 1, 1, 10)


def test_the_forecast_is_the_line_through_the_past() -> None:
    steady = [(600.0 * n, 10 + n) for n in range(7)]
    assert exhausted_in(steady, 100, 3600.0) == pytest.approx((100 - 16) * 600)
    assert exhausted_in(steady, 16, 3600.0) == 0
    assert exhausted_in(steady[:3], 100, 3600.0) is None  # too little past
    assert exhausted_in([(at, 10) for at, _ in steady], 100, 3600.0) is None  # no growth
    assert exhausted_in([(at, 100 - used) for at, used in steady], 100, 3600.0) is None
    assert exhausted_in(steady, 1 << 64, 3600.0) is None  # some day
    assert exhausted_in(steady, 100, 3600.0 + 48 * 3600) is None  # of days ago


@given(st.lists(st.integers(0, 100), max_size=60))
def test_a_level_is_told_once_and_not_at_every_pod(used: list[int]) -> None:
    before = 0
    for number in used:
        usage = Usage(range="r", size=100, used=number)
        now = level(usage, before)
        reached = max((one for one in LEVELS if number >= one), default=0)
        assert now in (reached, before)
        assert now >= reached
        assert now == reached or number > before - 5
        before = now


async def test_events_of_a_range_that_fills_up_and_empties() -> None:
    api = await FakeApiServer.start()
    usage = [Usage(range="10.42.0.0/24", size=100)]
    clock = iter(range(1000))

    def now() -> datetime:
        return datetime.fromtimestamp(next(clock), UTC)

    def told() -> list[tuple[str, str, str]]:
        events = sorted(api.objects["core/v1/events"].values(), key=lambda e: str(e["firstTimestamp"]))
        return [(e["type"], e["reason"], e["message"].split(":")[0]) for e in events]

    async with Client(api.config()) as client:
        events = IpamEvents(client, "n1", lambda: usage, frozenset, now)
        for used in (79, 80, 81, 79, 96, 100, 99, 100, 50):
            usage[0] = Usage(range="10.42.0.0/24", size=100, used=used)
            await events.write()
            await events.write()
        figures = "addresses of 10.42.0.0/24 are leased"
        assert told() == [
            ("Warning", "TP4018", f"80 of 100 {figures}, 20 are free. To mend it"),
            ("Warning", "TP4018", f"96 of 100 {figures}, 4 are free. To mend it"),
            ("Warning", "TP4001", f"100 of 100 {figures}, 0 are free. To mend it"),
            ("Normal", "TP4018", f"50 of 100 {figures}, 50 are free"),
        ]
        (found, *_) = (await client.list(EVENTS)).items
        assert found["involvedObject"]["kind"] == "Node"
    await api.down()


async def test_of_a_pool_that_fills_up_one_node_tells() -> None:
    api = await FakeApiServer.start()
    usage = [Usage(range="10.42.0.0/24", pool="main", uid="u7", size=100, used=96)]
    async with Client(api.config()) as client:
        for minute, node in enumerate(("n1", "n2", "n3")):
            now = partial(datetime, 2026, 11, 27, 23, minute, tzinfo=UTC)
            await IpamEvents(client, node, lambda: usage, frozenset, now).write()
        (found,) = (await client.list(EVENTS)).items
        about = found["involvedObject"]
        assert (about["kind"], about["name"], about["uid"]) == ("IPPool", "main", "u7")
        assert found["source"]["host"] == "n1" and found["reason"] == "TP4018"
    await api.down()


async def test_an_event_that_is_refused_is_told_later() -> None:
    api = await FakeApiServer.start()
    config = api.config()
    async with Client(config) as client:
        events = IpamEvents(client, "n1", lambda: [Usage(range="r", size=10, used=9)], frozenset)
        await api.down()
        await events.write()
        assert events._told == {}
