"""Ports of a host that no policy for host endpoints closes, lest a mistake cuts the node off.

Calico's own (``felix/config/config_params.go``, 3.29 to 3.32), and what an RKE2 node is lost without and
Calico leaves out: the kubelet's API and the port at which nodes join.
"""

from ipaddress import IPv4Network, IPv6Network

import msgspec

from towpath.model.net import Net
from towpath.policy.ir import TCP, UDP

EVERYWHERE: tuple[Net, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


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
    *_BOTH_WAYS,
    _KUBELET,
    _RKE2_SUPERVISOR,
)
OUTBOUND = (
    Failsafe(UDP, 53),  # DNS
    Failsafe(UDP, 67),  # DHCP
    *_BOTH_WAYS,
    _KUBELET,
    _RKE2_SUPERVISOR,
)
