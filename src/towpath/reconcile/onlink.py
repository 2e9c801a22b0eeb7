"""A way round a check of the kernel's that would make moving a peer a break before a make."""

from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network

from towpath.model.net import RT_TABLE_MAIN, Route


def stepping_stones(wanted: Iterable[Route], present: Iterable[Route]) -> list[Route]:
    """Host routes to gateways, to be there while ``wanted`` is added to ``present`` and gone afterwards.

    IPv6 refuses an ``onlink`` gateway that any route but the default leads to over another device
    ("Nexthop has invalid gateway or device mismatch"), and the gateway of a peer in the overlay lies within
    the very subnet whose route is to be moved there. It looks only when the route is added: with a host route
    over the right device in place it finds that one.
    """
    leads: dict[IPv6Network, set[str]] = {}
    for route in present:
        if isinstance(route.dst, IPv6Network) and route.table == RT_TABLE_MAIN and route.dst.prefixlen:
            leads.setdefault(route.dst, set()).add(route.dev)
    lengths = sorted({net.prefixlen for net in leads}, reverse=True)
    stones = []
    for route in wanted:
        if route.onlink and isinstance(route.via, IPv6Address):
            found = (leads.get(IPv6Network((route.via, n), strict=False)) for n in lengths)
            nearest = next((devices for devices in found if devices), None)
            if nearest is not None and nearest != {route.dev}:
                stones.append(Route(dst=IPv6Network(route.via), dev=route.dev, table=route.table))
    return stones
