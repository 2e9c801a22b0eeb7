"""Which address a pod gets: rules over values, no I/O.

They are host-local's (containernetworking/plugins ``ipam/host-local``), because a rollback to Canal must find
the addresses where host-local would have put them: the network address (flannel's own), the gateway (the
first usable address unless named) and IPv4's broadcast address are never given out, and the search goes round
robin from the last address handed out. On top: an address released recently comes last.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import msgspec

from towpath.ipam.errors import AddressUnavailable, BadRange, RangeExhausted
from towpath.model.net import Addr, Net


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses ``first`` to ``last`` of ``subnet``, both included, without ``gateway``."""

    subnet: Net
    first: Addr
    last: Addr
    gateway: Addr

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, IPv4Address | IPv6Address)
            and address.version == self.subnet.version
            and int(self.first) <= int(address) <= int(self.last)
            and address != self.gateway
        )

    @property
    def size(self) -> int:
        """How many addresses it can give out."""
        inside = int(self.first) <= int(self.gateway) <= int(self.last)
        return int(self.last) - int(self.first) + 1 - inside

    def __str__(self) -> str:
        whole = make_range(self.subnet, gateway=self.gateway)
        return str(self.subnet) if whole == self else f"{self.first}-{self.last}"


RangeSet = tuple[Range, ...]
"""Ranges of one family; a pod gets one address from each set."""


def make_range(
    subnet: Net, *, start: Addr | None = None, end: Addr | None = None, gateway: Addr | None = None
) -> Range:
    """A range with host-local's defaults: all but network and broadcast address, gateway the first usable.

    Raises BadRange for a subnet of fewer than four addresses, an address outside the subnet, or start > end.
    """
    host_bits = subnet.max_prefixlen - subnet.prefixlen
    if host_bits < 2:
        raise BadRange(
            f"network {subnet} is too small to allocate from: a /{subnet.max_prefixlen - 2} is the least"
        )
    first, last = subnet[1], subnet[-2] if isinstance(subnet, IPv4Network) else subnet[-1]
    for role, address in (("rangeStart", start), ("rangeEnd", end), ("gateway", gateway)):
        if address is not None and address not in subnet:
            raise BadRange(f"{role} {address} is not in subnet {subnet}")
    # The network address is flannel's own and the broadcast address nobody's, whatever the range says.
    low = max(start or first, first, key=int)
    high = min(end or last, last, key=int)
    if int(low) > int(high):
        raise BadRange(f"range {low}-{high} of subnet {subnet} is empty")
    return Range(subnet=subnet, first=low, last=high, gateway=gateway or subnet[1])


def check_ranges(sets: Sequence[RangeSet]) -> None:
    """Raise BadRange unless there is a set, each of one family, one a family, and no two ranges overlap."""
    if not sets or not all(sets):
        raise BadRange("no address range is configured")
    families = [{r.subnet.version for r in ranges} for ranges in sets]
    if any(len(family) > 1 for family in families):
        raise BadRange("the ranges of one set must be of one IP family")
    if len({min(family) for family in families}) != len(families):
        raise BadRange("at most one range set for each IP family: an interface gets one address a family")
    flat = [r for ranges in sets for r in ranges]
    for index, one in enumerate(flat):
        for other in flat[:index]:
            if one.subnet.version == other.subnet.version and not (
                int(one.last) < int(other.first) or int(other.last) < int(one.first)
            ):
                raise BadRange(f"ranges {other} and {one} overlap")


@lru_cache(maxsize=64)
def range_key(ranges: RangeSet) -> str:
    """The name under which a set's round-robin position is remembered."""
    return ",".join(f"{r.first}-{r.last}" for r in ranges)


def walk(ranges: RangeSet, after: Addr | None) -> Iterator[Addr]:
    """Every address of the set once, in order, from behind ``after`` (from the start if it is not in it)."""
    start = next((i for i, r in enumerate(ranges) if after is not None and _spans(r, after)), None)
    if start is None and after is not None:  # what it was in is reserved by now: go on behind that
        behind = [r for r in ranges if r.subnet.version == after.version and int(r.first) > int(after)]
        for r in (*behind, *(r for r in ranges if r not in behind)):
            yield from _span(r, int(r.first), int(r.last))
        return
    if start is None or after is None:
        for r in ranges:
            yield from _span(r, int(r.first), int(r.last))
        return
    position = ranges[start]
    yield from _span(position, int(after) + 1, int(position.last))
    for r in (*ranges[start + 1 :], *ranges[:start]):
        yield from _span(r, int(r.first), int(r.last))
    yield from _span(position, int(position.first), int(after))


def _spans(r: Range, address: Addr) -> bool:
    return address.version == r.subnet.version and int(r.first) <= int(address) <= int(r.last)


def _span(r: Range, low: int, high: int) -> Iterator[Addr]:
    make = type(r.first)
    for number in range(low, high + 1):
        address = make(number)
        if address != r.gateway:
            yield address


@lru_cache(maxsize=64)
def without(ranges: RangeSet, reserved: tuple[Net, ...]) -> RangeSet:
    """The ranges less what is reserved, in order; empty if that is all."""
    pieces = list(ranges)
    for net in reserved:
        low, high = int(net.network_address), int(net.broadcast_address)
        left = []
        for r in pieces:
            first, last, make = int(r.first), int(r.last), type(r.first)
            if net.version != r.subnet.version or high < first or last < low:
                left.append(r)
                continue
            if first < low:
                left.append(msgspec.structs.replace(r, last=make(low - 1)))
            if high < last:
                left.append(msgspec.structs.replace(r, first=make(high + 1)))
        pieces = left
    return tuple(r for r in pieces if r.size)


def pick(
    ranges: RangeSet,
    *,
    after: Addr | None,
    leased: Mapping[Addr, object],
    held: Mapping[Addr, float],
    foreign: Callable[[Addr], bool],
    reserved: tuple[Net, ...] = (),
) -> Addr:
    """The next free address.

    ``after`` is the last one handed out, ``leased`` what is taken, ``held`` recently released addresses with
    the time of their release (they come last, the longest free first), ``foreign`` asks whether the kernel
    knows another owner, ``reserved`` is never picked. Raises RangeExhausted.
    """
    whole, ranges = ranges, without(ranges, reserved)
    for address in walk(ranges, after):
        if address not in leased and address not in held and not foreign(address):
            return address
    for address in sorted(held, key=lambda a: (held[a], int(a))):
        if any(address in r for r in ranges) and address not in leased and not foreign(address):
            return address
    size = sum(r.size for r in whole)
    used = sum(1 for address in leased if any(address in r for r in ranges))
    kept = size - sum(r.size for r in ranges)
    raise RangeExhausted(", ".join(str(r) for r in whole), size, used, kept)


def match_requested(sets: Sequence[RangeSet], requested: Iterable[Addr]) -> dict[int, Addr]:
    """Which requested address is meant for which set (by index).

    Raises AddressUnavailable for an address outside every range, a gateway, or a second one for a set.
    """
    wanted: dict[int, Addr] = {}
    for address in requested:
        index = next((i for i, ranges in enumerate(sets) if any(address in r for r in ranges)), None)
        if index is None:
            if any(address == r.gateway for ranges in sets for r in ranges):
                raise AddressUnavailable(address, "it is the gateway's address of its range")
            known = ", ".join(str(r) for ranges in sets for r in ranges)
            raise AddressUnavailable(address, f"it is outside the configured ranges ({known})")
        if index in wanted and wanted[index] != address:
            raise AddressUnavailable(address, f"{wanted[index]} of the same family is requested as well")
        wanted[index] = address
    return wanted
