"""Ports of a host that no policy for host endpoints closes, lest a mistake cuts the node off.

Calico's own (``felix/config/config_params.go``, 3.29 to 3.32), and what an RKE2 node is lost without and
Calico leaves out: the kubelet's API, the port at which nodes join, and DHCP for IPv6. Tunnels between peers
are no failsafe, since nobody else may use their port: ``desired.host_chains`` always lets them through.
"""

from ipaddress import IPv4Network, IPv6Network

import msgspec

from towpath.model.net import Net

EVERYWHERE: tuple[Net, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

TCP, UDP = 6, 17


class Failsafe(msgspec.Struct, frozen=True):
    """``protocol`` an IP protocol number, ``port`` the destination's, ``nets`` those of the other side."""

    protocol: int
    port: int
    nets: tuple[Net, ...] = EVERYWHERE


# BGP, etcd's clients and peers, Typha, the API server, and etcd of self-hosted clusters of old.
_BOTH_WAYS = tuple(Failsafe(TCP, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
_KUBELET, _RKE2_SUPERVISOR = Failsafe(TCP, 10250), Failsafe(TCP, 9345)

INBOUND = (
    Failsafe(TCP, 22),  # SSH
    Failsafe(UDP, 68),  # DHCP
    Failsafe(UDP, 546),  # DHCPv6
    *_BOTH_WAYS,
    _KUBELET,
    _RKE2_SUPERVISOR,
)
OUTBOUND = (
    Failsafe(UDP, 53),  # DNS
    Failsafe(UDP, 67),  # DHCP
    Failsafe(UDP, 547),  # DHCPv6
    *_BOTH_WAYS,
    _KUBELET,
    _RKE2_SUPERVISOR,
)


class Failsafes(msgspec.Struct, frozen=True, kw_only=True):
    """What is open whatever policies say: ``inbound`` to this host, ``outbound`` from it."""

    inbound: tuple[Failsafe, ...] = INBOUND
    outbound: tuple[Failsafe, ...] = OUTBOUND


DEFAULT_FAILSAFES = Failsafes()
