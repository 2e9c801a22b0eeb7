"""flannel's contract on Node objects: annotations, byte for byte as flanneld writes them, and pod subnets.

Other nodes' annotations are other people's text. Everything here that reads them takes any string and ends in
a value or a Finding, never in an exception, and one node's garbage stays that node's affair.

Unlike flannel, the families of a dual-stack peer are judged one by one. flanneld drops a peer that lacks
either family's annotation or subnet altogether, and so a cluster on its way from one family to two loses
node after node. Serving the good family is safer: what is programmed for it depends on nothing of the other,
and the pods of the other are unreachable either way.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import msgspec

from towpath.api.core import Node
from towpath.api.netconf import NetConfError as NetConfError
from towpath.api.netconf import parse_net_conf as parse_net_conf
from towpath.api.text import parse_address, parse_cidr, parse_mac
from towpath.model.finding import Finding, Severity
from towpath.model.net import Addr, Family, Net, within
from towpath.model.network import ClusterNetwork

PREFIX = "flannel.alpha.coreos.com/"
MANAGED = PREFIX + "kube-subnet-manager"
BACKEND_TYPE = PREFIX + "backend-type"
BACKEND_DATA: dict[Family, str] = {4: PREFIX + "backend-data", 6: PREFIX + "backend-v6-data"}
PUBLIC_IP: dict[Family, str] = {4: PREFIX + "public-ip", 6: PREFIX + "public-ipv6"}
PUBLIC_IP_OVERWRITE: dict[Family, str] = {
    4: PREFIX + "public-ip-overwrite",
    6: PREFIX + "public-ipv6-overwrite",
}

FAMILIES: tuple[Family, Family] = (4, 6)


class Vtep(msgspec.Struct, frozen=True):
    """``backend-data`` of a VXLAN node. The VNI has 16 bits there, whatever the device's has."""

    vni: int
    mac: str


class PeerLink(msgspec.Struct, frozen=True, kw_only=True):
    """How one family of a peer is reached: its pods, its tunnel endpoint, its VTEP (None for host-gw)."""

    subnet: Net
    public: Addr
    vtep: Vtep | None = None


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that takes part in the overlay, with the families that can be served."""

    name: str
    links: dict[Family, PeerLink] = {}


def format_vtep(vni: int, mac: str) -> str:
    """``backend-data`` as Go's encoder writes it: compact, VNI first.

    flanneld recovers its own MAC by splitting on ``:"``; a space after the colon costs the node its MAC at
    the next restart.
    """
    return f'{{"VNI":{vni & 0xFFFF},"VtepMAC":"{mac}"}}'


def parse_vtep(text: str) -> Vtep:
    """Read ``backend-data`` as Go's decoder does: keys in any case, unknown ones ignored.

    Raises ValueError.
    """
    try:
        data = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError("is no JSON object")
    fields = {key.lower(): value for key, value in data.items()}
    vni, mac = fields.get("vni", 0), fields.get("vtepmac")
    if not isinstance(vni, int) or isinstance(vni, bool) or not 0 <= vni <= 0xFFFF:
        raise ValueError("has no VNI of 16 bits")
    if not isinstance(mac, str):
        raise ValueError("has no VtepMAC")
    return Vtep(vni, parse_mac(mac))


def random_mac(entropy: bytes) -> str:
    """A locally administered unicast MAC of six random bytes, for a device that never had one."""
    return bytes([entropy[0] & 0xFE | 0x02, *entropy[1:6]]).hex(":")


def pod_subnets(node: Node) -> dict[Family, Net]:
    """The node's podCIDRs, the first of each family. Raises ValueError for one that cannot be read."""
    cidrs = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
    if len(cidrs) > 2:
        raise ValueError("are more than two")
    subnets: dict[Family, Net] = {}
    for cidr in cidrs:
        net = parse_cidr(cidr)
        subnets.setdefault(net.version, net)
    return subnets


def annotations_of(node: Node) -> Mapping[str, str]:
    """The node's annotations; an API object may carry null for an empty map."""
    return node.metadata.annotations or {}


def parse_peer(node: Node, network: ClusterNetwork) -> tuple[Peer | None, tuple[Finding, ...]]:
    """What another node says of itself. None: it takes no part, or cannot be served in any family.

    A node that flannel does not manage (no ``kube-subnet-manager``) takes no part, and that is no finding.
    """
    notes = annotations_of(node)
    if notes.get(MANAGED) != "true":
        return None, ()
    relevant = (BACKEND_TYPE, *BACKEND_DATA.values(), *PUBLIC_IP.values())
    said = tuple((key, notes[key]) for key in relevant if key in notes)
    spec = (node.spec.pod_cidr, tuple(node.spec.pod_cidrs or ()))
    return _parse(node.metadata.name, said, spec, network)


# Nodes report their heartbeats far more often than they change any of this.
@lru_cache(maxsize=8192)
def _parse(
    name: str,
    said: tuple[tuple[str, str], ...],
    spec: tuple[str, tuple[str, ...]],
    network: ClusterNetwork,
) -> tuple[Peer | None, tuple[Finding, ...]]:
    notes = dict(said)
    backend = notes.get(BACKEND_TYPE, "")
    if backend != network.backend:
        fix = f"run every node with the backend {network.backend}"
        return None, (_finding("TP3002", name, f"its backend is {_quote(backend)}", fix, "warning"),)
    node = Node()
    try:
        node = msgspec.structs.replace(
            node, spec=msgspec.structs.replace(node.spec, pod_cidr=spec[0], pod_cidrs=list(spec[1]))
        )
        subnets = pod_subnets(node)
    except ValueError as error:
        fix = "see that the controller manager assigns one podCIDR a family"
        return None, (_finding("TP3004", name, f"its podCIDRs {_quote(str(spec))}: {error}", fix),)
    links: dict[Family, PeerLink] = {}
    findings: list[Finding] = []
    for whole in network.networks:
        family: Family = whole.version
        try:
            links[family] = _link(notes, subnets, whole, family, network)
        except _Unusable as error:
            findings.append(_finding(error.code, name, f"IPv{family}: {error}", error.fix))
            continue
        vtep = links[family].vtep
        if vtep is not None and vtep.vni != network.vni & 0xFFFF:
            fix = "configure one VNI in every node's net-conf.json"
            message = f"IPv{family}: its VNI is {vtep.vni}, ours {network.vni}"
            findings.append(_finding("TP3009", name, message, fix, "warning"))
    return (Peer(name=name, links=links) if links else None), tuple(findings)


class _Unusable(Exception):
    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code, self.fix = code, fix


def _link(
    notes: Mapping[str, str],
    subnets: Mapping[Family, Net],
    whole: IPv4Network | IPv6Network,
    family: Family,
    network: ClusterNetwork,
) -> PeerLink:
    subnet = subnets.get(family)
    if subnet is None:
        raise _Unusable("TP3004", "it has no podCIDR", "see that the controller manager assigns one")
    if not within(subnet, whole):
        fix = f"make the controller manager's cluster CIDR and net-conf.json's Network agree on {whole}"
        raise _Unusable("TP3004", f"its podCIDR {subnet} is not in {whole}", fix)
    text = notes.get(PUBLIC_IP[family], "")
    restart = "restart the network agent of that node, which writes it anew"
    try:
        public = parse_address(text, family)
    except ValueError as error:
        raise _Unusable("TP3001", f"{PUBLIC_IP[family]} {_quote(text)}: {error}", restart) from error
    if network.backend != "vxlan":
        return PeerLink(subnet=subnet, public=public)
    text = notes.get(BACKEND_DATA[family], "")
    try:
        return PeerLink(subnet=subnet, public=public, vtep=parse_vtep(text))
    except ValueError as error:
        raise _Unusable("TP3003", f"{BACKEND_DATA[family]} {_quote(text)} {error}", restart) from error


def _finding(code: str, node: str, message: str, fix: str, severity: Severity = "error") -> Finding:
    return Finding(code=code, object=f"Node/{node}", message=message, fix=fix, severity=severity)


def _quote(text: Any) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}…"
