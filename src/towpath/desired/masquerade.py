"""Source NAT: flannel's six rules, and what published ports need.

Semantics are those of flannel's iptables rules, which Canal has always run. Its nftables rules (0.25 on)
differ in two places that we do not follow: their fourth rule returns for *any* pod behind any node, which
leaves the sixth unreachable, and they test the mark for equality, so that a packet which also carries one of
Calico's bits (0x14000) is masqueraded a second time.
"""

from collections.abc import Iterable

from towpath.desired.names import POD_PREFIX
from towpath.model.net import Addr, Net
from towpath.model.network import ClusterNetwork

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_FAMILY = {4: "ip", 6: "ip6"}


def masquerade_rules(network: ClusterNetwork) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rules of the base chain ``nat_postrouting`` and of the chain ``masq`` it ends in."""
    snat = "masquerade fully-random" if network.random_fully else "masquerade"
    published = [_hairpin(family, snat) for family in (4, 6)]
    # The node itself, through 127.0.0.1: the pod could not answer that.
    published.append(f'oifname "{POD_PREFIX}*" ip saddr 127.0.0.0/8 {snat}')
    # kube-proxy's mark means that it masquerades this packet itself.
    base = ("meta mark & 0x00004000 == 0x00004000 return", *published, "jump masq")
    rules = [rule for family in (4, 6) for rule in _flannel(family, snat)] if network.masquerade else []
    return base, tuple(rules)


def needs_masquerading(network: ClusterNetwork, here: Iterable[Net], source: Addr, target: Addr) -> bool:
    """Whether a packet that another machine is to answer is masqueraded by the rules, whoever sent it.

    ``here`` are the pod subnets of this node. What kube-proxy masquerades is not told.
    """
    if not network.masquerade or target.is_multicast or target.is_link_local or source.is_link_local:
        return False
    inside = any(source in net for net in network.networks), any(target in net for net in network.networks)
    if inside[0] or not inside[1]:
        return inside[0] and not inside[1]
    return not any(target in net for net in here)


def _hairpin(family: int, snat: str) -> str:
    """A pod that calls a port it publishes itself must not see its own address as the client's."""
    return f"oifname . {_FAMILY[family]} saddr @pod_src{family} ct status dnat {snat}"


def _flannel(family: int, snat: str) -> tuple[str, ...]:
    ip, net, local = _FAMILY[family], f"@net{family}", f"@local{family}"
    return (
        f"{ip} saddr {local} {ip} daddr {net} return",
        f"{ip} saddr {net} {ip} daddr {local} return",
        # From outside to a pod of this node: the pod sees the client's address.
        f"{ip} saddr != {net} {ip} daddr {local} return",
        f"{ip} saddr {net} {ip} daddr != {_MULTICAST[family]} {snat}",
        # From outside to another node's pod: the answer must come back through here.
        f"{ip} saddr != {net} {ip} daddr {net} {snat}",
    )
