from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.ipam.allocate import check_ranges, make_range, match_requested, pick, walk
from towpath.ipam.errors import AddressUnavailable, BadRange, RangeExhausted
from towpath.model.net import Addr


def free(_: Addr) -> bool:
    return False


def test_a_pod_cidr_gives_out_what_host_local_would() -> None:
    addresses = list(walk((make_range(ip_network("10.42.1.0/29")),), None))
    assert [str(a) for a in addresses] == ["10.42.1.2", "10.42.1.3", "10.42.1.4", "10.42.1.5", "10.42.1.6"]
    assert make_range(ip_network("10.42.1.0/24")).size == 253


def test_ipv6_has_no_broadcast_address() -> None:
    addresses = list(walk((make_range(ip_network("fd00::/125")),), None))
    assert [str(a) for a in addresses] == [f"fd00::{n}" for n in range(2, 8)]


def test_start_end_and_gateway() -> None:
    net = ip_network("10.0.0.0/24")
    r = make_range(
        net, start=ip_address("10.0.0.1"), end=ip_address("10.0.0.5"), gateway=ip_address("10.0.0.3")
    )
    assert [str(a) for a in walk((r,), None)] == ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"]
    assert str(r) == "10.0.0.1-10.0.0.5"
    whole = make_range(net, start=ip_address("10.0.0.0"), end=ip_address("10.0.0.255"))
    assert (str(whole.first), str(whole.last)) == ("10.0.0.1", "10.0.0.254")


@pytest.mark.parametrize(
    ("subnet", "start", "end", "words"),
    [
        ("10.0.0.0/31", None, None, "too small"),
        ("fd00::/127", None, None, "too small"),
        ("10.0.0.0/24", "10.1.0.1", None, "rangeStart 10.1.0.1 is not in subnet"),
        ("10.0.0.0/24", "10.0.0.9", "10.0.0.8", "empty"),
        ("10.0.0.0/24", "fd00::1", None, "not in subnet"),
    ],
)
def test_senseless_ranges(subnet: str, start: str | None, end: str | None, words: str) -> None:
    with pytest.raises(BadRange, match=words):
        make_range(
            ip_network(subnet),
            start=ip_address(start) if start else None,
            end=ip_address(end) if end else None,
        )


def test_sets_are_checked_as_a_whole() -> None:
    four, six = make_range(ip_network("10.0.0.0/24")), make_range(ip_network("fd00::/64"))
    check_ranges([(four,), (six,)])
    with pytest.raises(BadRange, match="no address range"):
        check_ranges([])
    with pytest.raises(BadRange, match="one IP family"):
        check_ranges([(four, six)])
    with pytest.raises(BadRange, match="one address a family"):
        check_ranges([(four,), (make_range(ip_network("10.1.0.0/24")),)])
    with pytest.raises(BadRange, match="overlap"):
        check_ranges([(four, make_range(ip_network("10.0.0.128/25")))])


def test_round_robin_goes_on_behind_the_last_and_wraps() -> None:
    ranges = (make_range(ip_network("10.0.0.0/29")), make_range(ip_network("10.0.1.0/29")))
    order = list(walk(ranges, ip_address("10.0.1.3")))
    assert str(order[0]) == "10.0.1.4" and str(order[3]) == "10.0.0.2" and str(order[-1]) == "10.0.1.3"
    assert sorted(order, key=int) == sorted(walk(ranges, None), key=int)


def test_recently_released_come_last_the_longest_free_first() -> None:
    ranges = (make_range(ip_network("10.0.0.0/29")),)
    pool = [ip_address(f"10.0.0.{n}") for n in range(2, 7)]
    held = {pool[0]: 5.0, pool[1]: 3.0}
    got = []
    leased: dict[Addr, object] = {}
    for _ in pool:
        got.append(pick(ranges, after=None, leased=leased, held=held, foreign=free))
        leased[got[-1]] = 1
    assert got == [*pool[2:], pool[1], pool[0]]


def test_exhaustion_says_how_many_of_what() -> None:
    ranges = (make_range(ip_network("10.0.0.0/29")),)
    leased = {ip_address(f"10.0.0.{n}"): 1 for n in range(2, 6)}
    with pytest.raises(RangeExhausted) as caught:
        pick(ranges, after=None, leased=leased, held={}, foreign=lambda a: True)
    assert str(caught.value) == (
        "no free address in 10.0.0.0/29: 4 of 5 are leased, 1 routed to interfaces without a lease"
    )


def test_requested_addresses() -> None:
    sets = [(make_range(ip_network("10.0.0.0/24")),), (make_range(ip_network("fd00::/64")),)]
    assert match_requested(sets, [ip_address("fd00::9")]) == {1: ip_address("fd00::9")}
    for address, words in [
        ("10.1.0.1", "outside the configured"),
        ("10.0.0.1", "gateway"),
        ("10.0.0.0", "outside"),
    ]:
        with pytest.raises(AddressUnavailable, match=words):
            match_requested(sets, [ip_address(address)])
    with pytest.raises(AddressUnavailable, match="same family"):
        match_requested(sets, [ip_address("10.0.0.2"), ip_address("10.0.0.3")])


@given(
    taken=st.sets(st.integers(2, 14)),
    held=st.dictionaries(st.integers(2, 14), st.floats(0, 60)),
    foreign=st.sets(st.integers(2, 14)),
    after=st.integers(1, 15) | st.none(),
)
def test_pick_finds_a_free_one_exactly_when_there_is_one(
    taken: set[int], held: dict[int, float], foreign: set[int], after: int | None
) -> None:
    base = ip_network("10.9.9.0/28")
    ranges = (make_range(base),)

    def call() -> Addr:
        return pick(
            ranges,
            after=None if after is None else base[after],
            leased={base[n]: 1 for n in taken},
            held={base[n]: at for n, at in held.items() if n not in taken},
            foreign=lambda a: int(a) - int(base[0]) in foreign,
        )

    left = set(range(2, 15)) - taken - foreign
    if not left:
        with pytest.raises(RangeExhausted):
            call()
        return
    got = call()
    assert isinstance(got, IPv4Address)
    number = int(got) - int(base[0])
    assert number in left
    assert number not in held or not left - set(held)
