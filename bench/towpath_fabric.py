"""Towpath's side of ``bench.fabric``: the same two nodes and pods, from the product's own desired state.

    ip netns exec NODE python -m bench.towpath_fabric a|b vxlan|direct

applies what the agent would apply on that node: fabric, ruleset and one pod, with the agent's own code.
"""

import os
import sys
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench.flannel_by_hand import Side, ip, underlay
from towpath.api.core import Node, NodeAddress, NodeSpec, NodeStatus
from towpath.api.meta import ObjectMeta
from towpath.desired.annotations import own_annotations
from towpath.desired.names import host_ifname
from towpath.desired.node import node_state
from towpath.desired.pods import born, pod_wiring
from towpath.desired.snapshot import Snapshot
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import route_socket_in, run_in
from towpath.model.attachment import Attachment
from towpath.model.network import ClusterNetwork, Underlay
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

A = Side("tow-a", "tow-pod-a", "192.168.50.1", "10.42.0", "02:00:00:00:60:01")
B = Side("tow-b", "tow-pod-b", "192.168.50.2", "10.42.1", "02:00:00:00:60:02")


def network(*, direct: bool) -> ClusterNetwork:
    """The cluster's settings: Canal's defaults, with or without DirectRouting."""
    return ClusterNetwork(ipv4=IPv4Network("10.42.0.0/16"), direct_routing=direct)


def node(side: Side) -> Node:
    """A Node object as the API would hold it before any agent has annotated it."""
    cidr = f"{side.subnet}.0/24"
    return Node(
        metadata=ObjectMeta(name=side.node),
        spec=NodeSpec(pod_cidr=cidr, pod_cidrs=[cidr]),
        status=NodeStatus(addresses=[NodeAddress("InternalIP", side.underlay)]),
    )


def snapshot(
    side: Side, nodes: dict[str, Node], attachments: tuple[Attachment, ...], direct: bool
) -> Snapshot:
    """What the agent on ``side`` would compute from."""
    other = B if side is A else A
    return Snapshot(
        node_name=side.node,
        network=network(direct=direct),
        nodes=nodes,
        underlay=Underlay(
            dev="eth0",
            mtu=1500,
            ipv4=IPv4Address(side.underlay),
            on_link=frozenset({IPv4Address(other.underlay)}),
        ),
        attachments=attachments,
        vtep_macs={"flannel.1": side.vtep},
    )


def annotated(side: Side, direct: bool) -> Node:
    """The Node with the annotations its agent writes."""
    bare = node(side)
    annotations = own_annotations(snapshot(side, {side.node: bare}, (), direct))
    return Node(
        metadata=ObjectMeta(name=side.node, annotations=annotations), spec=bare.spec, status=bare.status
    )


def attachment(side: Side, mtu: int) -> Attachment:
    """The one pod on ``side``."""
    return Attachment(
        container_id=f"bench-{side.pod}",
        ifname="eth0",
        network="k8s-pod-network",
        netns=f"/run/netns/{side.pod}",
        host_ifname=host_ifname("bench", side.pod),
        addresses=(IPv4Address(side.pod_address),),
        mac="02:00:00:00:70:01",
        mtu=mtu,
        boot_id="bench",
    )


def apply(side: Side, *, direct: bool) -> None:
    """Fabric, ruleset, pod: in the agent's order, in the calling process's namespace."""
    nodes = {s.node: annotated(s, direct) for s in (A, B)}
    pod = attachment(side, 1500 if direct else 1450)
    kernel = LinuxKernel()
    wiring = pod_wiring(pod)
    netns = os.open(pod.netns, os.O_RDONLY)
    kernel.apply(diff(NetState(), wiring.host, Scope()), pod_netns=netns)
    ipv4, ipv6 = (
        run_in(netns, partial(os.open, f"/proc/sys/net/{v}", os.O_RDONLY)) for v in ("ipv4", "ipv6")
    )
    inside = LinuxKernel(route_socket_in(netns), (ipv4, ipv6), nft=False)
    inside.apply(diff(born(pod), wiring.inside, Scope()))
    desired = node_state(snapshot(side, nodes, (pod,), direct))
    observed = kernel.observe(desired.state.sysctls, "towpath")
    kernel.apply(diff(observed, desired.state, desired.scope))


def build(*, direct: bool) -> None:
    """Both nodes, each by a process inside it."""
    import subprocess

    underlay(A.node, B.node, A.underlay, B.underlay)
    for side in (A, B):
        ip(None, f"netns add {side.pod}\n")
    for letter, side in (("a", A), ("b", B)):
        command = ["ip", "netns", "exec", side.node, sys.executable, "-m", "bench.towpath_fabric", letter]
        subprocess.run([*command, "direct" if direct else "vxlan"], check=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    apply({"a": A, "b": B}[sys.argv[1]], direct=sys.argv[2] == "direct")
