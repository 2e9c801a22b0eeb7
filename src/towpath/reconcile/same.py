"""When an observed object counts as the desired one although the values differ."""

from collections.abc import Iterable

from towpath.model.net import Address, Net, Shaper


def same_shaper(seen: Shaper, wanted: Shaper) -> bool:
    """The kernel keeps the rate in bytes and the burst as time (64 ns ticks): both come back rounded."""
    return (
        seen.rate // 8 == wanted.rate // 8
        and abs(seen.burst - wanted.burst) * 50 <= wanted.burst
        and abs(seen.latency - wanted.latency) * 5 <= wanted.latency
    )


def connected(addresses: Iterable[Address]) -> frozenset[tuple[Net, str]]:
    """Destination and device of the routes the kernel itself makes for addresses (also for a /128)."""
    return frozenset((address.interface.network, address.dev) for address in addresses)
