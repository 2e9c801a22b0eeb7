"""Where connections begin and end, as bit sets: each endpoint's address, and networks less what is in them.

Between two places every rule says the same, whichever of their addresses are taken. Bit N of an integer is
place N. Places are sorted so that those inside a network are neighbours.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

import msgspec

from towpath.model.net import Addr, Family, Net
from towpath.policy.ir import KIND, Endpoint, World

Kind = Literal["pod", "hostendpoint", "node", "outside"]
EVERYWHERE: tuple[Net, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

KINDS: tuple[Kind, ...] = ("pod", "hostendpoint", "node", "outside")
_Key = tuple[int, int, int]  # version, first address, prefix length; addresses after every network


class Place(msgspec.Struct, frozen=True):
    """The endpoints ``names`` at ``address``; or nobody's, an ``address`` or a ``net`` except ``but``.

    ``names`` are of those whose policies are asked; of nodes if there is nobody else.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    address: Addr | None = None
    net: Net | None = None
    but: tuple[Net, ...] = ()

    @property
    def family(self) -> Family:
        """Of its addresses."""
        return 4 if isinstance(self.address or self.net, IPv4Address | IPv4Network) else 6

    def __str__(self) -> str:
        if self.names:
            return f"{', '.join(self.names)} ({self.address})"
        if self.but:
            return f"{self.net} except {', '.join(map(str, self.but))}"
        return str(self.address or self.net)


class Places:
    """All places of a world. ``also`` worlds add their addresses and networks, so that several can be
    compared place by place: an address without an endpoint in this one is nobody's.
    """

    def __init__(self, world: World, *also: World) -> None:
        self.places = _places(world, also)
        self.everywhere = (1 << len(self.places)) - 1
        self.families: dict[Family, int] = {4: 0, 6: 0}
        self.kinds: dict[Kind, int] = {}
        self._keys = [_key(place.net if place.address is None else place.address) for place in self.places]
        self._at: dict[Addr, int] = {}
        for number, place in enumerate(self.places):
            self.families[place.family] |= 1 << number
            self.kinds[place.kind] = self.kinds.get(place.kind, 0) | 1 << number
            if place.address is not None:
                self._at[place.address] = number

    def at(self, address: Addr) -> int:
        """The number of the place that the address belongs to."""
        if address in self._at:
            return self._at[address]
        around = [n for n, place in enumerate(self.places) if place.net is not None and address in place.net]
        return max(around, key=lambda number: self._keys[number])

    def inside(self, net: Net) -> int:
        """Those inside a network, which must be one that the worlds' rules or network sets have."""
        version, start, length = _key(net)
        last = int(net.broadcast_address)
        first = bisect_left(self._keys, (version, start, length))
        return (1 << bisect_right(self._keys, (version, last, _ADDRESS))) - (1 << first)


def ones(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def refined(groups: Iterable[int], cuts: Iterable[int]) -> list[int]:
    """The groups, cut until each is either inside or outside of every cut.

    A large cut is tried on every group. Small ones are noted at each place inside, and places with the same
    notes stay together: thousands of groups and thousands of small cuts need not all meet.
    """
    found = list(groups)
    small: dict[int, list[int]] = {}
    for name, cut in enumerate(cuts):
        if cut.bit_count() <= _SMALL:
            for number in ones(cut):
                small.setdefault(number, []).append(name)
        else:
            parts = ((group & cut, group & ~cut) for group in found)
            found = [part for both in parts for part in both if part]
    noted = sum(1 << number for number in small)
    return [part for group in found for part in _by_notes(group, group & noted, small)]


_SMALL = 64


def _by_notes(group: int, noted: int, notes: dict[int, list[int]]) -> Iterable[int]:
    if not noted:
        return (group,)
    parts: dict[tuple[int, ...], int] = {(): group ^ noted}
    for number in ones(noted):
        key = tuple(notes[number])
        parts[key] = parts.get(key, 0) | 1 << number
    return filter(None, parts.values())


_ADDRESS = 129


def _key(what: Addr | Net | None) -> _Key:
    match what:
        case IPv4Network() | IPv6Network():
            return what.version, int(what.network_address), what.prefixlen
        case IPv4Address() | IPv6Address():
            return what.version, int(what), _ADDRESS
        case None:
            raise ValueError("a place has an address or a network")


def _places(world: World, also: Iterable[World]) -> list[Place]:
    found: dict[Addr, list[Endpoint]] = {
        address: [] for other in also for endpoint in other.endpoints for address in endpoint.addresses
    }
    for endpoint in world.endpoints:
        for address in endpoint.addresses:
            found.setdefault(address, []).append(endpoint)
    places = [_owned(address, endpoints) for address, endpoints in found.items()]
    nets = {net for each in (world, *also) for net in _nets(each)}
    places += _remainders(nets.union(EVERYWHERE), list(found))
    return sorted(places, key=lambda place: _key(place.net if place.address is None else place.address))


def _owned(address: Addr, endpoints: list[Endpoint]) -> Place:
    """Of those that are judged, if there are any: a node's host endpoint speaks for it."""
    by_kind = {endpoint.labels.get(KIND): endpoint for endpoint in endpoints}
    kind = next((kind for kind in KINDS if kind in by_kind), KINDS[-1])
    named = {e.name for e in endpoints if kind == "node" or e.labels.get(KIND) != "node"}
    return Place(kind, tuple(sorted(named)), address)


def _nets(world: World) -> Iterator[Net]:
    for networks in world.network_sets:
        yield from networks.nets
    for policy in world.policies:
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            for peer in (rule.source, rule.destination):
                yield from peer.nets or ()
                yield from peer.not_nets
    if any(endpoint.labels.get(KIND) == "hostendpoint" for endpoint in world.endpoints):
        for failsafe in (*world.failsafes.inbound, *world.failsafes.outbound):
            yield from failsafe.nets


def _remainders(nets: Iterable[Net], addresses: Iterable[Addr]) -> list[Place]:
    """Each network less the networks and addresses inside it, where that leaves anything.

    ``nets`` hold every address: EVERYWHERE is among them.
    """
    left: dict[Net, int] = {}
    inner: dict[Net, list[Net]] = {}
    around: list[Net] = []
    for item in sorted((*nets, *addresses), key=_key):
        while around and not _within(item, around[-1]):
            around.pop()
        if isinstance(item, IPv4Address | IPv6Address):
            left[around[-1]] -= 1
            continue
        if around:
            left[around[-1]] -= item.num_addresses
            inner[around[-1]].append(item)
        around.append(item)
        left[item], inner[item] = item.num_addresses, []
    return [Place("outside", net=net, but=tuple(inner[net])) for net, count in left.items() if count]


def _within(item: Addr | Net, net: Net) -> bool:
    version, first, _ = _key(item)
    return version == net.version and int(net.network_address) <= first <= int(net.broadcast_address)
