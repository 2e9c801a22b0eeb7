"""Kernel network objects as values: links, addresses, routes, neighbours, forwarding entries.

Devices are named, never numbered: an interface index belongs to one kernel at one moment, and a desired
state must hold across re-creation of a device. ``kernel`` translates on the way in and out.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

import msgspec

Addr = IPv4Address | IPv6Address
Net = IPv4Network | IPv6Network
Iface = IPv4Interface | IPv6Interface
Family = Literal[4, 6]

RT_TABLE_MAIN = 254


def within(inner: Net, outer: Net) -> bool:
    """Whether ``inner`` is ``outer`` or a part of it; never across families."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


class Vxlan(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a VXLAN device, as flannel creates it (``IFLA_VXLAN_*``).

    ``vni`` 24 bits; ``port`` UDP, host order; ``local`` the tunnel source; ``underlay`` the device it is
    bound to.
    """

    vni: int
    port: int
    local: Addr
    underlay: str
    learning: bool = False
    gbp: bool = False


class Veth(msgspec.Struct, frozen=True, kw_only=True):
    """A veth pair seen from its host end. The peer is born inside the pod's namespace.

    ``peer`` is the interface name inside the pod, ``peer_mac`` its MAC.
    """

    peer: str
    peer_mac: str
    peer_mtu: int


class Ifb(msgspec.Struct, frozen=True):
    """An intermediate functional block device: pod egress is shaped on its way out of one."""


class Bridge(msgspec.Struct, frozen=True):
    """A learning bridge: the lab's underlay switch, and bridge networks of pods."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device. ``kind`` is None for devices of no kind we create (NICs, ``lo``).

    ``mac`` is lower case with colons, or None where any will do. ``mtu`` in bytes, 0 where any will do.
    ``master`` is the bridge the device is enslaved to.
    """

    name: str
    kind: Vxlan | Veth | Ifb | Bridge | None = None
    mtu: int = 0
    mac: str | None = None
    up: bool = True
    master: str | None = None


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address on a device; ``interface`` carries the prefix length.

    IPv6 addresses are always added with NODAD: duplicate address detection would leave a new pod deaf for
    up to two seconds, and our addresses are unique by lease.
    """

    dev: str
    interface: Iface
    scope: Literal["global", "link", "host"] = "global"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A unicast route. ``via`` None means directly connected; ``onlink`` trusts the gateway to be on ``dev``.

    ``mtu`` in bytes, 0 for the device's.
    """

    dst: Net
    dev: str
    via: Addr | None = None
    onlink: bool = False
    scope: Literal["global", "link"] = "global"
    src: Addr | None = None
    table: int = RT_TABLE_MAIN
    mtu: int = 0


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A permanent ARP or ND entry: nothing waits for resolution, nothing can poison it."""

    dev: str
    addr: Addr
    mac: str


class Fdb(msgspec.Struct, frozen=True, kw_only=True):
    """A permanent VXLAN forwarding entry: frames to ``mac`` go to tunnel endpoint ``dst``."""

    dev: str
    mac: str
    dst: Addr


class Shaper(msgspec.Struct, frozen=True, kw_only=True):
    """Token bucket (tbf) at the root of ``dev``. ``rate`` bits per second, ``burst`` bits, ``latency`` ms."""

    dev: str
    rate: int
    burst: int
    latency: int = 25


class Redirect(msgspec.Struct, frozen=True, kw_only=True):
    """Everything arriving on ``dev`` is sent out of ``ifb`` first (ingress qdisc and mirred)."""

    dev: str
    ifb: str
