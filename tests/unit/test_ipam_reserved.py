"""Reserved addresses: what is left of a range, what is read of IPReservations, and who waits for that."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.agent.reservations import Reservations, read
from towpath.ipam.allocate import make_range, pick, walk, without
from towpath.ipam.errors import RangeExhausted
from towpath.ipam.usage import counted
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import IP_RESERVATIONS
from towpath.model.net import Addr

RANGES = (make_range(ip_network("10.42.0.0/26")), make_range(ip_network("10.42.1.0/28")))
NETS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(26, 32)).map(
        lambda pair: ip_network((int(ip_address("10.41.255.240")) + pair[0], pair[1]), strict=False)
    ),
    max_size=6,
)


def nobody(_: Addr) -> bool:
    return False


@given(nets=NETS, start=st.integers(0, 320), used=st.sets(st.integers(0, 300), max_size=90))
def test_what_is_left_is_all_that_is_not_reserved(nets: list[Any], start: int, used: set[int]) -> None:
    everything = [a for a in walk(RANGES, None) if not any(a in net for net in nets)]
    left = without(RANGES, tuple(nets))
    assert list(walk(left, None)) == everything
    after = ip_address(int(ip_address("10.41.255.250")) + start)
    assert sorted(walk(left, after), key=int) == sorted(everything, key=int)  # from wherever it begins
    leased = {ip_address(int(ip_address("10.42.0.0")) + n): None for n in used}
    free = [a for a in everything if a not in leased]
    usage = counted(RANGES, leased, (), (), tuple(nets))
    assert usage.free == len(free)
    try:
        found = pick(RANGES, after=after, leased=leased, held={}, foreign=nobody, reserved=tuple(nets))
    except RangeExhausted as error:
        assert not free
        assert (error.size, error.used + usage.reserved) >= (74, 0)
    else:
        assert found in free


def test_the_round_robin_goes_on_behind_what_was_reserved() -> None:
    nets = (ip_network("10.42.0.8/30"),)
    found = pick(RANGES, after=ip_address("10.42.0.9"), leased={}, held={}, foreign=nobody, reserved=nets)
    assert str(found) == "10.42.0.12"


def test_half_of_an_ipv6_range_costs_nothing() -> None:
    ranges = (make_range(ip_network("fd00::/64")),)
    nets = (ip_network("fd00::/65"),)
    found = pick(ranges, after=None, leased={}, held={}, foreign=nobody, reserved=nets)
    assert str(found) == "fd00::8000:0:0:0"
    with pytest.raises(RangeExhausted, match="614 are leased, 18446744073709551614 reserved"):
        pick(ranges, after=None, leased={}, held={}, foreign=nobody, reserved=(ip_network("::/0"),))


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(240):
        while not truth():  # noqa: ASYNC110 - a reflector has no event for it
            await asyncio.sleep(0.005)


def reservation(name: str, cidrs: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"reservedCIDRs": cidrs}}


@pytest.mark.parametrize("spec", [{}, {"spec": None}, {"spec": []}, {"spec": {"reservedCIDRs": None}}])
def test_reservations_of_nothing(spec: dict[str, Any]) -> None:
    assert read({("", "r"): {"metadata": {"name": "r"}, **spec}}) == ((), [])


def test_one_bad_cidr_spoils_no_other() -> None:
    nets, findings = read(
        {
            ("", "a"): reservation("a", ["10.42.1.7", "10.42.2.9/30", "10.42.1.7/33", 7, "fd00::/80"]),
            ("", "b"): reservation("b", "10.0.0.0/8"),
        }
    )
    assert list(map(str, nets)) == ["10.42.1.7/32", "10.42.2.8/30", "fd00::/80", "10.0.0.0/8"]
    assert [(f.code, f.object) for f in findings] == [("TP4019", "IPReservation/a")] * 2
    assert "'10.42.1.7/33' is no address" in findings[0].message


async def test_it_is_not_known_what_is_reserved_until_the_server_has_said_so() -> None:
    api = await FakeApiServer.start()
    api.put(IP_RESERVATIONS, reservation("a", ["10.42.1.7"]))
    api.served[IP_RESERVATIONS.group, IP_RESERVATIONS.version] = [IP_RESERVATIONS.plural]
    async with Client(api.config()) as client:
        followed = Reservations(client, 90)
        assert followed.problem() and not followed.nets()
        task = asyncio.create_task(followed.run())
        await until(lambda: not followed.problem())
        assert list(map(str, followed.nets())) == ["10.42.1.7/32"]
        api.put(IP_RESERVATIONS, reservation("b", ["bad"]))
        await until(followed.findings)
        api.remove(IP_RESERVATIONS, "a")
        await until(lambda: not followed.nets())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await api.down()


async def test_without_the_kind_nothing_is_reserved() -> None:
    api = await FakeApiServer.start()
    async with Client(api.config()) as client:
        followed = Reservations(client, 90)
        task = asyncio.create_task(followed.run())
        await until(lambda: not followed.problem())
        assert followed.nets() == ()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await api.down()
