"""Nodes and snapshots for tests."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from msgspec.structs import replace

from towpath.api.core import Node, NodeSpec
from towpath.api.flannel import PREFIX
from towpath.api.meta import ObjectMeta
from towpath.api.report import PODS_BY_WIRE
from towpath.desired.snapshot import Snapshot
from towpath.model.network import ClusterNetwork, Underlay

DUAL = ClusterNetwork(ipv4=IPv4Network("10.42.0.0/16"), ipv6=IPv6Network("fd00:10:42::/56"))
V4_ONLY = ClusterNetwork(ipv4=IPv4Network("10.42.0.0/16"))
V6_ONLY = ClusterNetwork(ipv6=IPv6Network("fd00:10:42::/56"))
UNDERLAY = Underlay(
    dev="eth0", mtu=1500, ipv4=IPv4Address("172.30.0.11"), ipv6=IPv6Address("fd00:172:30::11")
)


def mac(number: int, family: int = 4) -> str:
    """The VTEP MAC of node ``number``."""
    return f"0e:00:00:00:0{family}:{number:02x}"


def node(number: int, backend: str = "vxlan", **notes: str | None) -> Node:
    """Node ``nNUMBER`` as flanneld leaves it; ``public_ip="…"`` changes an annotation, None drops it."""
    said: dict[str, str | None] = {
        "backend-type": backend,
        "kube-subnet-manager": "true",
        "public-ip": f"172.30.0.{10 + number}",
        "public-ipv6": f"fd00:172:30::{10 + number}",
        "backend-data": f'{{"VNI":1,"VtepMAC":"{mac(number)}"}}' if backend == "vxlan" else "null",
        "backend-v6-data": f'{{"VNI":1,"VtepMAC":"{mac(number, 6)}"}}' if backend == "vxlan" else "null",
    }
    said |= {key.replace("_", "-"): value for key, value in notes.items()}
    cidrs = [f"10.42.{number}.0/24", f"fd00:10:42:{number}::/64"]
    return Node(
        metadata=ObjectMeta(
            name=f"n{number}", annotations={PREFIX + k: v for k, v in said.items() if v is not None}
        ),
        spec=NodeSpec(pod_cidr=cidrs[0], pod_cidrs=cidrs),
    )


def telling(node: Node, by_wire: str) -> Node:
    """The node as a Towpath agent leaves it that takes or refuses pods' packets off the wire."""
    notes = {**(node.metadata.annotations or {}), PODS_BY_WIRE: by_wire}
    return replace(node, metadata=replace(node.metadata, annotations=notes))


def snapshot(*nodes: Node, **fields: Any) -> Snapshot:
    """What node ``n1`` sees."""
    values: dict[str, Any] = {
        "node_name": "n1",
        "network": DUAL,
        "underlay": UNDERLAY,
        "nodes": {n.metadata.name: n for n in nodes},
    }
    return Snapshot(**(values | fields))
