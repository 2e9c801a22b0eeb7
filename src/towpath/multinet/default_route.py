"""Moves a pod's default route to an extra network (``default-route``). Pure.

Multus deletes the old default route and nothing takes its place: behind a /32 the pod then reaches no other
pod. Here what the old route led to of the pods' own networks stays reachable by it.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from towpath.model.net import Addr, Net, Route
from towpath.model.op import Add, Delete, Op
from towpath.model.state import NetState

_EVERYWHERE: dict[int, Net] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def moved(seen: NetState, ifname: str, gateways: Sequence[Addr], networks: Sequence[Net]) -> list[Op]:
    """What to do. ``seen`` is the pod's namespace; the old default routes of both families go, whichever
    family has a gateway; to ``networks`` the old ways stay.
    """
    old = _defaults(seen)
    ops: list[Op] = []
    for route in old:
        kept = (net for net in networks if net.version == route.dst.version and route.via is not None)
        ops += [Add(Route(dst=net, dev=route.dev, via=route.via, onlink=route.onlink)) for net in kept]
    ops += [Delete(route) for route in old]
    return ops + [
        Add(Route(dst=_EVERYWHERE[gateway.version], dev=ifname, via=gateway)) for gateway in gateways
    ]


def not_moved(seen: NetState, ifname: str, gateways: Sequence[Addr]) -> str:
    """How the default routes differ from what ``moved`` was to bring about, empty if they do not."""
    wanted = {(ifname, gateway) for gateway in gateways}
    found = {(route.dev, route.via) for route in _defaults(seen)}
    if wanted == found:
        return ""
    return f"default routes lead {_ways(found) or 'nowhere'} and not {_ways(wanted)}"


def brought_back(seen: NetState, routes: Iterable[Route]) -> list[Op]:
    """When the interface that had it is gone: the default routes among ``routes``, the default network's, of
    each family that has none.
    """
    families = {route.dst.version for route in _defaults(seen)}
    return [Add(route) for route in routes if route.dst.prefixlen == 0 and route.dst.version not in families]


def _defaults(seen: NetState) -> list[Route]:
    found = [route for route in seen.routes if route.dst.prefixlen == 0]
    return sorted(found, key=lambda route: (route.dst.version, route.dev, str(route.via)))


def _ways(ways: set[tuple[str, Addr]] | set[tuple[str, Addr | None]]) -> str:
    return ", ".join(sorted(f"via {via} dev {dev}" for dev, via in ways))
