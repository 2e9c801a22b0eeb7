"""What a network namespace holds (``NetState``) and what of it is ours (``Scope``)."""

import msgspec

from towpath.model.net import Address, Fdb, Link, Neighbour, Net, Redirect, Route, Shaper
from towpath.model.nft import NftTable


class NetState(msgspec.Struct, frozen=True, kw_only=True):
    """State of one network namespace, desired or observed.

    The same type serves both directions, so that ``reconcile.diff(observed, desired)`` compares like with
    like. ``links`` by name; ``sysctls`` by path below /proc/sys (``net/ipv4/conf/eth0/proxy_arp``);
    ``nft`` is our own table, None where it is absent (or, desired, where none is wanted).
    """

    links: dict[str, Link] = {}
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    fdb: frozenset[Fdb] = frozenset()
    shapers: frozenset[Shaper] = frozenset()
    redirects: frozenset[Redirect] = frozenset()
    sysctls: dict[str, str] = {}
    nft: NftTable | None = None

    def merge(self, other: "NetState") -> "NetState":
        """Union of two states that speak of different objects; the later link, sysctl and table win."""
        return NetState(
            links={**self.links, **other.links},
            addresses=self.addresses | other.addresses,
            routes=self.routes | other.routes,
            neighbours=self.neighbours | other.neighbours,
            fdb=self.fdb | other.fdb,
            shapers=self.shapers | other.shapers,
            redirects=self.redirects | other.redirects,
            sysctls={**self.sysctls, **other.sysctls},
            nft=other.nft if other.nft is not None else self.nft,
        )


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What reconciliation may delete: an observed object outside the scope is somebody else's.

    ``devices``: our overlay devices; every address, neighbour, fdb entry and route on them is ours.
    ``pod_prefix``: host ends of pod links ("cali"); routes and neighbours on those that the desired state
    knows are ours (one it does not know may be another agent's, or an ADD's under way); the links themselves
    are never deleted by reconciliation, only by DEL and garbage collection.
    ``networks``: cluster networks; unicast routes of the main table into them through a gateway are ours
    (that is how host-gw and DirectRouting routes are recognised).
    """

    devices: frozenset[str] = frozenset()
    pod_prefix: str = "cali"
    networks: frozenset[Net] = frozenset()
