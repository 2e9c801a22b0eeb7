"""What this node is to the others: its subnets, its tunnel endpoint, its VTEP's MAC."""

import msgspec

from towpath.api.core import Node
from towpath.api.flannel import (
    BACKEND_DATA,
    PUBLIC_IP_OVERWRITE,
    PeerLink,
    Vtep,
    annotations_of,
    parse_vtep,
    pod_subnets,
)
from towpath.api.text import parse_address
from towpath.desired.snapshot import Snapshot
from towpath.model.finding import Finding
from towpath.model.net import Addr, Family
from towpath.model.network import ClusterNetwork


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Per family that can be served here: ``links`` as peers see this node, ``local`` the tunnel's source.

    A family of the cluster's that is missing in them is unknown for now, which is no reason to take anything
    of it down.
    """

    links: dict[Family, PeerLink]
    local: dict[Family, Addr]
    findings: tuple[Finding, ...]


def device(network: ClusterNetwork, family: Family) -> str:
    """The VXLAN device of a family: ``flannel.1``, ``flannel-v6.1``."""
    return f"flannel.{network.vni}" if family == 4 else f"flannel-v6.{network.vni}"


def own_identity(snapshot: Snapshot) -> Identity:
    """Read it from the own Node, the underlay and the devices there are."""
    node = snapshot.nodes.get(snapshot.node_name)
    if node is None:
        fix = "see that the kubelet has registered the node under this name"
        return Identity(links={}, local={}, findings=(_finding(snapshot, "TP3010", "is not known", fix),))
    findings: list[Finding] = []
    try:
        subnets = pod_subnets(node)
    except ValueError as error:
        fix = "see that the controller manager assigns one podCIDR a family"
        return Identity(
            links={}, local={}, findings=(_finding(snapshot, "TP3010", f"podCIDRs: {error}", fix),)
        )
    links: dict[Family, PeerLink] = {}
    local: dict[Family, Addr] = {}
    for net in snapshot.network.networks:
        family: Family = net.version
        subnet, source = subnets.get(family), _underlay_address(snapshot, family)
        if subnet is None:
            fix = "give the controller manager a cluster CIDR of this family (--allocate-node-cidrs)"
            findings.append(_finding(snapshot, "TP3010", f"IPv{family}: has no podCIDR", fix))
        elif subnet.prefixlen < net.prefixlen or subnet.network_address not in net:
            fix = f"make the controller manager's cluster CIDR and net-conf.json agree on {net}"
            message = f"IPv{family}: podCIDR {subnet} is not in {net}"
            findings.append(_finding(snapshot, "TP3011", message, fix))
        elif source is None:
            message = f"IPv{family}: {snapshot.underlay.dev} has no address of this family"
            findings.append(_finding(snapshot, "TP3012", message, "give it one, or name another interface"))
        else:
            public, said = _public(snapshot, node, family, source)
            findings += said
            links[family] = PeerLink(subnet=subnet, public=public, vtep=_vtep(snapshot, node, family))
            local[family] = source
    return Identity(links=links, local=local, findings=tuple(findings))


def _underlay_address(snapshot: Snapshot, family: Family) -> Addr | None:
    return snapshot.underlay.ipv4 if family == 4 else snapshot.underlay.ipv6


def _public(snapshot: Snapshot, node: Node, family: Family, source: Addr) -> tuple[Addr, list[Finding]]:
    """``public-ip-overwrite`` if it is an address, else the tunnel's source."""
    text = annotations_of(node).get(PUBLIC_IP_OVERWRITE[family], "")
    if not text:
        return source, []
    try:
        return parse_address(text, family), []
    except ValueError as error:
        fix = "correct or remove the annotation"
        message = f"{PUBLIC_IP_OVERWRITE[family]} {text[:60]!r}: {error}"
        return source, [_finding(snapshot, "TP3017", message, fix)]


def _vtep(snapshot: Snapshot, node: Node, family: Family) -> Vtep | None:
    """The MAC peers know from the annotation, else the device's, else the one the agent has made up."""
    if snapshot.network.backend != "vxlan":
        return None
    try:
        mac: str | None = parse_vtep(annotations_of(node).get(BACKEND_DATA[family], "")).mac
    except ValueError:
        mac = snapshot.vtep_macs.get(device(snapshot.network, family))
    return Vtep(snapshot.network.vni & 0xFFFF, mac) if mac else None


def _finding(snapshot: Snapshot, code: str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=f"Node/{snapshot.node_name}", message=message, fix=fix)
