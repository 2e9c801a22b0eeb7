"""Addresses, routes, neighbours and forwarding entries of a fake namespace, and how they hang together."""

from collections.abc import Callable
from errno import EACCES, EAFNOSUPPORT, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, IPv6Network

from msgspec.structs import replace

from towpath.kernel.fake_links import Event, FakeDevice, FakeLinks
from towpath.model.net import Addr, Address, Fdb, Neighbour, Net, Route, Vxlan

_LINK_LOCAL = IPv6Network("fe80::/64")


class FakeInet:
    """State of both families on the devices of ``links``.

    ``ipv6_off(dev)`` tells whether disable_ipv6 is set. Raises OSError where the kernel refuses.
    """

    def __init__(self, links: FakeLinks, ipv6_off: Callable[[str], bool]) -> None:
        self._links, self._ipv6_off = links, ipv6_off
        self.addresses: dict[tuple[str, IPv4Interface | IPv6Interface], Address] = {}
        self._secondary: set[tuple[str, IPv4Interface | IPv6Interface]] = set()
        self.routes: dict[tuple[Net, int], Route] = {}
        self.neighbours: dict[tuple[str, Addr], Neighbour] = {}
        self.fdb: dict[tuple[str, str], Fdb] = {}

    def put(self, item: Address | Route | Neighbour | Fdb) -> None:
        """Add or replace."""
        device = self._links.get(item.dev)
        match item:
            case Address():
                self._put_address(item)
            case Route():
                self._check_route(item, device)
                self.routes[item.dst, item.table] = item
            case Neighbour():
                if item.addr.version == 6 and self._ipv6_off(item.dev):
                    raise OSError(EINVAL, "IPv6 is disabled on this device")
                if item.dev != "lo":
                    self.neighbours[item.dev, item.addr] = item
            case Fdb():
                if isinstance(device.kind, Vxlan):
                    if device.kind.local.version != item.dst.version:
                        raise OSError(EAFNOSUPPORT, "Address family not supported by protocol")
                    self.fdb[item.dev, item.mac] = item

    def drop(self, item: Address | Route | Neighbour | Fdb) -> None:
        """Delete; what is not there is no error."""
        match item:
            case Address():
                self._drop_address(item)
            case Route():
                found = self.routes.get((item.dst, item.table))
                if found is not None and found.dev == item.dev and item.via in (None, found.via):
                    del self.routes[item.dst, item.table]
            case Neighbour():
                self.neighbours.pop((item.dev, item.addr), None)
            case Fdb():
                if self.fdb.get((item.dev, item.mac)) == item:
                    del self.fdb[item.dev, item.mac]

    def changed(self, event: Event, device: FakeDevice) -> None:
        """What a device's change does to the rest."""
        dev = device.name
        match event:
            case "up":
                self._brought_up(device)
            case "carrier":
                self.make_link_local(device)
            case "renumbered":  # the kernel drops a device's neighbours, permanent or not
                self.neighbours = {k: n for k, n in self.neighbours.items() if n.dev != dev}
            case "down":
                self.forget(dev, addresses=(6,), others=(4, 6))
            case "gone":
                self.forget(dev, addresses=(4, 6), others=(4, 6))
                self.fdb = {key: item for key, item in self.fdb.items() if item.dev != dev}

    def forget(self, dev: str, *, addresses: tuple[int, ...], others: tuple[int, ...]) -> None:
        """Drop a device's addresses, and its routes and neighbours, of some families."""
        self.addresses = {
            k: a for k, a in self.addresses.items() if a.dev != dev or a.interface.version not in addresses
        }
        self.routes = {k: r for k, r in self.routes.items() if r.dev != dev or r.dst.version not in others}
        self.neighbours = {
            k: n for k, n in self.neighbours.items() if n.dev != dev or n.addr.version not in others
        }

    def make_link_local(self, device: FakeDevice) -> None:
        """The kernel's own address (EUI-64), once both ends are up."""
        ready = device.up and (device.peer is None or device.peer.up)
        if not device.makes_link_local or not ready or self._ipv6_off(device.name):
            return
        raw = bytearray(bytes.fromhex(device.mac.replace(":", "")))
        raw[0] ^= 2
        address = IPv6Address(b"\xfe\x80" + bytes(6) + bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:]))
        interface = IPv6Interface((address, 64))
        self.addresses.setdefault(
            (device.name, interface), Address(dev=device.name, interface=interface, scope="link")
        )

    def _brought_up(self, device: FakeDevice) -> None:
        if device.name == "lo":
            for text in ("127.0.0.1/8", "::1/128"):
                interface = IPv4Interface(text) if "." in text else IPv6Interface(text)
                self.addresses["lo", interface] = Address(dev="lo", interface=interface, scope="host")
        self.make_link_local(device)

    def _put_address(self, item: Address) -> None:
        key = (item.dev, item.interface)
        if key in self.addresses:
            return
        if item.interface.version == 6:
            if self._ipv6_off(item.dev):
                raise OSError(EACCES, "IPv6 is disabled on this device")
            if any(
                a.dev == item.dev and a.interface.ip == item.interface.ip for a in self.addresses.values()
            ):
                return
        elif mates := self._mates(item):
            if any(mate.scope != item.scope for mate in mates):
                raise OSError(EINVAL, "Invalid scope value")
            self._secondary.add(key)
        self.addresses[key] = item

    def _drop_address(self, item: Address) -> None:
        found = self.addresses.pop((item.dev, item.interface), None)
        if found is None:
            return
        gone = [found]
        if (item.dev, item.interface) in self._secondary:
            self._secondary.discard((item.dev, item.interface))
        elif item.interface.version == 4:  # with a primary go its secondaries (promote_secondaries is 0)
            gone += self._mates(item)
        for mate in gone[1:]:
            del self.addresses[mate.dev, mate.interface]
            self._secondary.discard((mate.dev, mate.interface))
        for address in gone:
            self._sources_gone(address)
        if item.interface.version == 4 and not any(
            a.dev == item.dev and a.interface.version == 4 for a in self.addresses.values()
        ):
            self.forget(item.dev, addresses=(), others=(4,))

    def _mates(self, item: Address) -> list[Address]:
        """Other addresses of the same subnet on the same device."""
        subnet = item.interface.network
        return [
            a
            for a in self.addresses.values()
            if a.dev == item.dev and a.interface.network == subnet and a.interface != item.interface
        ]

    def _sources_gone(self, address: Address) -> None:
        """Routes that use a lost address as source: IPv4 ones go, IPv6 ones only forget it."""
        ip = address.interface.ip
        if any(a.interface.ip == ip for a in self.addresses.values()):
            return
        for key, route in list(self.routes.items()):
            if route.src != ip:
                continue
            del self.routes[key]
            if ip.version == 6:
                self.routes[key] = replace(route, src=None)

    def _check_route(self, item: Route, device: FakeDevice) -> None:
        version = item.dst.version
        narrow = version == 4 and item.scope == "link"  # narrower than the way to any gateway
        if item.via is not None and item.onlink and narrow:
            raise OSError(EINVAL, "Nexthop has invalid scope")
        if item.via is not None and not item.onlink and (narrow or not self._on_link(item.via, device)):
            if version == 4:
                raise OSError(ENETUNREACH, "Nexthop has invalid gateway")
            raise OSError(EHOSTUNREACH, "No route to host")
        if version == 6 and self._ipv6_off(item.dev) and not (item.onlink and not device.up):
            raise OSError(EACCES, "IPv6 is disabled on nexthop device")
        if not device.up:
            raise OSError(ENETDOWN, "Nexthop device is not up")
        if item.src is not None and not any(a.interface.ip == item.src for a in self.addresses.values()):
            raise OSError(EINVAL, "Invalid prefsrc address")

    def _on_link(self, gateway: Addr, device: FakeDevice) -> bool:
        """Whether a gateway is directly reachable on ``device``."""
        if gateway in _LINK_LOCAL:
            return True
        if not device.up:
            return False
        for address in self.addresses.values():
            if address.dev == device.name and gateway in address.interface.network:
                return True
        narrow = [
            r
            for r in self.routes.values()
            if r.dev == device.name
            and r.via is None
            and gateway in r.dst
            and (r.scope == "link" or gateway.version == 6)
        ]
        return bool(narrow)
