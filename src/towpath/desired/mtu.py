"""MTU per family, from what the underlay carries: one source for devices, pods and annotations.

flannel takes 50 bytes off for both families. Over IPv6 the outer header is 20 bytes longer: with an explicit
MTU its IPv6 device is too large (flannel#1781), without one the kernel clamps it and flannel goes on to
announce the larger figure.
"""

from towpath.model.finding import Finding
from towpath.model.net import Family
from towpath.model.network import ClusterNetwork, Underlay

# Outer IP header, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
OVERHEAD: dict[Family, int] = {4: 20 + 30, 6: 40 + 30}
IPV6_MINIMUM = 1280


def underlay_mtu(network: ClusterNetwork, underlay: Underlay) -> int:
    """The configured MTU, but never more than the NIC's: the kernel refuses a tunnel larger than that."""
    return min(network.mtu, underlay.mtu) if network.mtu else underlay.mtu


def overlay_mtu(network: ClusterNetwork, underlay: Underlay, family: Family) -> int:
    """What a packet of ``family`` between pods of two nodes may measure, in bytes.

    DirectRouting changes nothing: peers off the link still go through the tunnel.
    """
    overhead = OVERHEAD[family] if network.backend == "vxlan" else 0
    return underlay_mtu(network, underlay) - overhead


def pod_mtu(network: ClusterNetwork, underlay: Underlay) -> int:
    """MTU of a pod's link: one figure for both families, so the lowest that each one's overlay carries."""
    if network.pod_mtu:
        return network.pod_mtu
    return min(overlay_mtu(network, underlay, net.version) for net in network.networks)


def mtu_findings(network: ClusterNetwork, underlay: Underlay, node: str) -> tuple[Finding, ...]:
    """What is wrong with the figures of this node."""
    found: list[Finding] = []
    if network.mtu > underlay.mtu:
        message = f"the configured MTU {network.mtu} is more than the {underlay.mtu} of {underlay.dev}"
        fix = (
            f"set Backend.MTU in net-conf.json to at most {underlay.mtu}, or raise the MTU of {underlay.dev}"
        )
        found.append(_finding("TP3014", node, message, fix))
    carried = min((overlay_mtu(network, underlay, net.version) for net in network.networks), default=0)
    if network.pod_mtu > carried:
        message = f"pods are configured for an MTU of {network.pod_mtu}, the overlay carries {carried}"
        found.append(_finding("TP3014", node, message, "remove pod_mtu: it is computed from the underlay"))
    if network.ipv6 is not None and min(carried, network.pod_mtu or carried) < IPV6_MINIMUM:
        message = f"pods would get an MTU below {IPV6_MINIMUM}, under which there is no IPv6"
        fix = f"raise the MTU of {underlay.dev} to at least {IPV6_MINIMUM + OVERHEAD[6]}"
        found.append(_finding("TP3013", node, message, fix))
    return tuple(found)


def _finding(code: str, node: str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=f"Node/{node}", message=message, fix=fix)
