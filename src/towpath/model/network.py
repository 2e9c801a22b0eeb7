"""The cluster network as configured: flannel's net-conf.json in typed form."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

import msgspec


class ClusterNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """Cluster-wide settings every node must agree on.

    ``ipv4``/``ipv6`` the pod networks, None for a family that is off. ``backend`` "vxlan" or "host-gw".
    ``port`` UDP (flannel's 0 means 8472). ``mtu`` of the underlay as configured, 0 to take the NIC's.
    ``direct_routing``: peers on the same link are reached without encapsulation.
    ``masquerade``: flannel's ``--ip-masq``. ``pod_mtu`` 0 to compute it from the underlay. ``own_table``: the
    agent owns its nftables table, where the kernel knows owners that end and leave it.
    """

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    backend: Literal["vxlan", "host-gw"] = "vxlan"
    vni: int = 1
    port: int = 8472
    mtu: int = 0
    direct_routing: bool = False
    gbp: bool = False
    learning: bool = False
    masquerade: bool = True
    random_fully: bool = True
    pod_mtu: int = 0
    own_table: bool = False

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The pod networks of the families that are on."""
        return tuple(n for n in (self.ipv4, self.ipv6) if n is not None)


class Underlay(msgspec.Struct, frozen=True, kw_only=True):
    """The node's own attachment to the network that carries the overlay, as observed.

    ``dev`` the NIC; ``ipv4``/``ipv6`` its addresses (text form parsed), None where the family is off;
    ``mtu`` of the NIC in bytes; ``on_link`` addresses of peers a single gateway-less route leads to.
    """

    dev: str
    mtu: int
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    on_link: frozenset[IPv4Address | IPv6Address] = frozenset()
