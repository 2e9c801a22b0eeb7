"""What a lab consists of, as values: nodes, addresses, the links between them. No I/O.

Addresses are the same in every lab (each lives in namespaces of its own), so that documentation, tests and
captures can name them: nodes 172.30.SEGMENT.11…, fd00:172:30:SEGMENT::11…; router .1; outside host
198.51.100.10 and 2001:db8:51::10, which knows no way to pod addresses.
"""

import json
import re
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Any, Literal

import msgspec

from towpath.lab.rundir import LabError
from towpath.model.net import Address, Bridge, Iface, Link, Net, Route, Veth
from towpath.model.op import Add, AddLink, Op, SetLink, SetSysctl

FIRST_HOST, MAX_NODES = 11, 200
API_PORT = 6443
POD_NETWORK4, POD_NETWORK6 = IPv4Network("10.42.0.0/16"), IPv6Network("fd00:10:42::/56")
VNI = 1
SERVICE_NETWORK4, SERVICE_NETWORK6 = IPv4Network("10.43.0.0/16"), IPv6Network("fd00:10:43::/112")
OUTSIDE4, OUTSIDE6 = IPv4Interface("198.51.100.10/24"), IPv6Interface("2001:db8:51::10/64")
OUTSIDE_GATEWAY4, OUTSIDE_GATEWAY6 = IPv4Interface("198.51.100.1/24"), IPv6Interface("2001:db8:51::1/64")
ROUTER_LL = IPv6Interface("fe80::1/64")
DEFAULT4, DEFAULT6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")

_NODE_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node. ``segment`` 0–99 is the layer-2 segment it sits on; segments meet at the router.

    ``host`` is the last part of its addresses, 0 for the next free one. ``pod_cidrs`` are the node's
    parts of the lab's pod network, empty for what the controller gives.
    """

    name: str
    segment: int = 0
    host: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    taints: tuple[dict[str, str], ...] = ()
    pod_cidrs: tuple[str, ...] = ()

    @property
    def ipv4(self) -> IPv4Interface:
        """Address on the underlay."""
        return IPv4Interface(f"172.30.{self.segment}.{self.host}/24")

    @property
    def ipv6(self) -> IPv6Interface:
        """Address on the underlay; the host part reads as in IPv4."""
        return IPv6Interface(f"fd00:172:30:{self.segment or 0}::{self.host}/64")

    @property
    def port(self) -> str:
        """The switch port: the other end of the node's cable, in the lab's root namespace."""
        return f"p{self.segment}-{self.host}"


class LabSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lab as asked for; also the schema of ``--topology FILE`` (YAML).

    ``families`` of underlay, pods and services; ``mtu`` of the underlay in bytes; ``backend`` and
    ``direct_routing`` as in flannel's net-conf.json; ``agent_config`` extra keys of the agent's file.
    ``crds`` are CustomResourceDefinitions that are there before the agents, as in a cluster that had them.
    ``cni`` "canal": the nodes are Canal's (stand-ins, ``lab.canal``), and Towpath waits for nodes that are
    labelled for it, as in a migration. ``control_plane`` "real" runs upstream's etcd, API server, controllers
    and scheduler (``lab.real``). ``images``: by its name, the folder with an image's files, from which its
    containers then run; it needs folders for /dev, /proc, /run, /sys and the volumes.
    """

    name: str = "towpath"
    nodes: tuple[NodeSpec, ...] = ()
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    mtu: int = 1500
    backend: Literal["vxlan", "host-gw"] = "vxlan"
    direct_routing: bool = False
    cni: Literal["towpath", "canal"] = "towpath"
    control_plane: Literal["embedded", "real"] = "embedded"
    agent_config: dict[str, Any] = {}
    crds: tuple[dict[str, Any], ...] = ()
    images: dict[str, str] = {}

    @property
    def ipv4(self) -> bool:
        """Whether IPv4 is on."""
        return "ipv4" in self.families

    @property
    def ipv6(self) -> bool:
        """Whether IPv6 is on."""
        return "ipv6" in self.families

    @property
    def segments(self) -> list[int]:
        """Segments that have a node, and 0, where the API server listens."""
        return sorted({0, *(node.segment for node in self.nodes)})

    def node(self, name: str) -> NodeSpec:
        """The node called ``name``. Raises LabError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise LabError(f"there is no node {name!r}", f"nodes: {', '.join(n.name for n in self.nodes)}")


def lab_spec(raw: object, **overrides: Any) -> LabSpec:
    """Validate a topology (as decoded from YAML) with what the command line overrides; number the nodes.

    ``overrides["nodes"]`` is a count: nodes n1… are added up to it. Raises LabError.
    """
    count = overrides.pop("nodes", None)
    try:
        given = msgspec.convert(raw if raw is not None else {}, LabSpec, strict=False)
        spec: LabSpec = msgspec.structs.replace(given, **{k: v for k, v in overrides.items() if v})
    except msgspec.ValidationError as wrong:
        raise LabError(f"topology: {wrong}", code="TP9004") from wrong
    nodes = list(spec.nodes)
    wanted = count if count is not None else (len(nodes) or 3)
    taken = {node.name for node in nodes}
    spare = (f"n{i}" for i in range(1, MAX_NODES * 2) if f"n{i}" not in taken)
    nodes += [NodeSpec(name=next(spare)) for _ in range(wanted - len(nodes))]
    if spec.cni == "canal" and (spec.control_plane == "real" or spec.backend != "vxlan"):
        raise LabError("Canal is had with the embedded control plane and vxlan only", code="TP9004")
    return msgspec.structs.replace(spec, nodes=_numbered(nodes))


def _numbered(nodes: list[NodeSpec]) -> tuple[NodeSpec, ...]:
    if not 1 <= len(nodes) <= MAX_NODES:
        raise LabError(f"a lab has 1 to {MAX_NODES} nodes, not {len(nodes)}", code="TP9004")
    if len({n.name for n in nodes}) != len(nodes):
        raise LabError("topology: two nodes have the same name", code="TP9004")
    taken = {(n.segment, n.host) for n in nodes if n.host}
    result = []
    for node in nodes:
        if not _NODE_NAME.match(node.name) or not 0 <= node.segment <= 99 or not 0 <= node.host <= 254:
            raise LabError(f"topology: node {node.name!r}: bad name, segment or host number", code="TP9004")
        host = node.host or next(h for h in range(FIRST_HOST, 255) if (node.segment, h) not in taken)
        taken.add((node.segment, host))
        result.append(msgspec.structs.replace(node, host=host))
    return tuple(result)


def net_conf(spec: LabSpec) -> str:
    """flannel's net-conf.json for this lab."""
    backend: dict[str, object] = {"Type": spec.backend}
    if spec.backend == "vxlan":
        backend |= {"VNI": VNI, "Port": 8472}
        if spec.direct_routing:
            backend["DirectRouting"] = True
    conf: dict[str, object] = {"EnableIPv4": spec.ipv4, "EnableIPv6": spec.ipv6}
    if spec.ipv4:
        conf["Network"] = str(POD_NETWORK4)
    if spec.ipv6:
        conf["IPv6Network"] = str(POD_NETWORK6)
    return json.dumps({**conf, "Backend": backend})


def networks(spec: LabSpec, four: IPv4Network, six: IPv6Network) -> list[str]:
    """The networks of the families that are on, as text, IPv4 first."""
    return [str(net) for net, on in ((four, spec.ipv4), (six, spec.ipv6)) if on]


def pod_networks(spec: LabSpec) -> list[Net]:
    """The pod networks of the families that are on."""
    both: list[tuple[Net, bool]] = [(POD_NETWORK4, spec.ipv4), (POD_NETWORK6, spec.ipv6)]
    return [net for net, on in both if on]


def segment_gateways(spec: LabSpec, segment: int) -> list[Iface]:
    """The router's addresses on a segment."""
    both: list[tuple[Iface, bool]] = [
        (IPv4Interface(f"172.30.{segment}.1/24"), spec.ipv4),
        (IPv6Interface(f"fd00:172:30:{segment}::1/64"), spec.ipv6),
    ]
    return [iface for iface, on in both if on]


def api_addresses(spec: LabSpec) -> list[str]:
    """Addresses of the API server as nodes reach it, IPv4 first."""
    return [str(iface.ip) for iface in segment_gateways(spec, 0)]


def api_url(spec: LabSpec) -> str:
    """The API server as nodes reach it."""
    host = api_addresses(spec)[0]
    return f"https://[{host}]:{API_PORT}" if ":" in host else f"https://{host}:{API_PORT}"


def root_ops(spec: LabSpec) -> list[Op]:
    """The lab's root namespace: one bridge a segment, the router's addresses, forwarding."""
    ops: list[Op] = [SetLink(name="lo", up=True), *_forwarding()]
    for segment in spec.segments:
        bridge = f"br{segment}"
        mac = f"02:1b:00:00:{segment:02x}:01"
        ops.append(AddLink(link=Link(name=bridge, kind=Bridge(), mtu=spec.mtu, mac=mac)))
        ops += [Add(item=Address(dev=bridge, interface=i)) for i in segment_gateways(spec, segment)]
        ops += _router_link_local(spec, bridge)
    return ops


def outside_ops(spec: LabSpec) -> tuple[list[Op], list[Op]]:
    """The outside host's cable: operations for the root namespace, then for the host's own."""
    veth = Veth(peer="eth0", peer_mac="02:1b:51:00:00:10", peer_mtu=spec.mtu)
    link = Link(name="outside", kind=veth, mtu=spec.mtu, mac="02:1b:51:00:00:01")
    root: list[Op] = [AddLink(link=link), *_router_link_local(spec, "outside")]
    host: list[Op] = [SetLink(name="lo", up=True), SetLink(name="eth0", up=True)]
    for on, mine, gateway, default in (
        (spec.ipv4, OUTSIDE4, OUTSIDE_GATEWAY4, DEFAULT4),
        (spec.ipv6, OUTSIDE6, OUTSIDE_GATEWAY6, DEFAULT6),
    ):
        if on:
            root.append(Add(item=Address(dev="outside", interface=gateway)))
            host += _uplink(mine, gateway, default)
    return root, host


def cable_ops(spec: LabSpec, node: NodeSpec) -> list[Op]:
    """In the root namespace: the node's cable, its far end born in the node's namespace as eth0."""
    mac = f"02:1c:{node.segment:02x}:00:00:{node.host:02x}"
    veth = Veth(peer="eth0", peer_mac=mac, peer_mtu=spec.mtu)
    return [AddLink(link=Link(name=node.port, kind=veth, mtu=spec.mtu, master=f"br{node.segment}"))]


def node_ops(spec: LabSpec, node: NodeSpec) -> list[Op]:
    """In the node's namespace: what its operating system would have configured at boot."""
    ops: list[Op] = [SetLink(name="lo", up=True), *_forwarding(), SetLink(name="eth0", up=True)]
    for gateway in segment_gateways(spec, node.segment):
        mine: Iface = node.ipv4 if gateway.version == 4 else node.ipv6
        ops += _uplink(mine, gateway, DEFAULT4 if gateway.version == 4 else DEFAULT6)
    return ops


def internal_ips(spec: LabSpec, node: NodeSpec) -> list[str]:
    """The node's InternalIP addresses, IPv4 first."""
    both = ((str(node.ipv4.ip), spec.ipv4), (str(node.ipv6.ip), spec.ipv6))
    return [ip for ip, on in both if on]


def outside_addresses(spec: LabSpec) -> list[str]:
    """The outside host's addresses, IPv4 first."""
    return [str(i.ip) for i, on in ((OUTSIDE4, spec.ipv4), (OUTSIDE6, spec.ipv6)) if on]


def _router_link_local(spec: LabSpec, dev: str) -> list[Op]:
    # Devices are made without one; but a router asks for its neighbours from it (RFC 4861, 7.2.2), and an
    # interface that has none forwards only to those who spoke first.
    return [Add(item=Address(dev=dev, interface=ROUTER_LL, scope="link"))] if spec.ipv6 else []


def _uplink(mine: Iface, gateway: Iface, default: Net) -> list[Op]:
    return [
        Add(item=Address(dev="eth0", interface=mine)),
        Add(item=Route(dst=default, dev="eth0", via=gateway.ip)),
    ]


def _forwarding() -> list[Op]:
    # Not "all": the kernel would flush nothing, but accept_ra and redirects follow conf/all/forwarding.
    return [
        SetSysctl(path="net/ipv4/ip_forward", value="1"),
        SetSysctl(path="net/ipv6/conf/all/forwarding", value="1"),
        SetSysctl(path="net/ipv6/conf/default/forwarding", value="1"),
    ]
