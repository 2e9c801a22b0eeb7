"""Clusters that nobody has at hand: inventories and archives made up for ``bench.upgrade``."""

from ipaddress import ip_address
from typing import Any

import msgspec

from towpath.backup.archive import SCHEMA, Archive, Manifest, entry
from towpath.backup.objects import clean
from towpath.catalogue.model import Catalogue
from towpath.inventory.cluster import EtcdSnapshot, HelmChart, Inventory, node_state
from towpath.inventory.components import components, node_facts
from towpath.inventory.node_report import NodeReport, Rules, Tunnel
from towpath.inventory.pods import PodState
from towpath.lab import canal

Raw = dict[str, Any]
BEGINS, ENDS = "v1.32.1+rke2r1", "v1.32.2+rke2r1"


def node(number: int, images: list[str]) -> Raw:
    """The first three are servers; every one has a /24 of 10.0.0.0/8."""
    labels = {"node-role.kubernetes.io/control-plane": "true"} if number < 3 else {"zone": f"z{number % 3}"}
    info = {"kubeletVersion": BEGINS, "kernelVersion": "6.8.0-51-generic", "osImage": "Ubuntu 24.04"}
    flannel = {
        "flannel.alpha.coreos.com/public-ip": address(number),
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": f'{{"VNI":1,"VtepMAC":"{mac(number)}"}}',
    }
    return {
        "metadata": {"name": f"node-{number:04}", "labels": labels, "annotations": flannel},
        "spec": {"podCIDRs": [cidr(number)]},
        "status": {
            "nodeInfo": info,
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": [{"names": images}],
        },
    }


def cidr(number: int) -> str:
    """Of a node's pods: RKE2's default network has room for 256 nodes, larger clusters choose their own."""
    return f"10.42.{number}.0/24" if number < 256 else f"10.{64 + number // 256}.{number % 256}.0/24"


def address(number: int) -> str:
    """Of a node."""
    return str(ip_address("192.168.0.10") + number)


def mac(number: int) -> str:
    """Of a node's tunnel."""
    return f"02:42:00:00:{number >> 8:02x}:{number & 255:02x}"


def inventory(known: Catalogue, nodes: int, pods: int, policies: int) -> Inventory:
    """As `towpath inventory` would take it, with what was found on every node itself."""
    release = known.release(ENDS)
    images = [canal.image(release, name) for name in release.images]
    raws = [node(number, images) for number in range(nodes)]
    daemonset = canal.daemonset(known.release(BEGINS))
    daemonset["metadata"]["uid"] = "ds"
    spec = daemonset["spec"]["template"]["spec"]
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    own = [
        {
            "metadata": {"name": f"rke2-canal-{number}", "ownerReferences": [{"uid": "ds"}]},
            "spec": {**spec, "nodeName": f"node-{number:04}"},
            "status": status,
        }
        for number in range(nodes)
    ]
    daemonset["status"] = {
        "desiredNumberScheduled": nodes,
        "numberReady": nodes,
        "updatedNumberScheduled": nodes,
    }
    states = []
    for number, raw in enumerate(raws):
        state = node_state(raw, node_facts(raw), pods // nodes)
        states.append(msgspec.structs.replace(state, report=_report(number, nodes)))
    return Inventory(
        taken="2026-11-27T00:00:00Z",
        server=BEGINS,
        cluster="bench",
        nodes=tuple(states),
        components=components([daemonset], own),
        charts=(HelmChart("rke2-canal", known.release(BEGINS).charts["rke2-canal"], "abort", frozen=False),),
        objects={"networkpolicies.networking.k8s.io": policies},
        snapshots=(EtcdSnapshot(taken="2026-11-27T00:00:00Z", ready=True, bucket=True),),
        pods=tuple(_pod(number, nodes) for number in range(pods)),
    )


def _report(number: int, nodes: int) -> NodeReport:
    """A node that knows all its peers: a thousand entries in each of its tunnel's tables."""
    peers = [other for other in range(nodes) if other != number]
    tunnel = Tunnel(
        name="flannel.1",
        mac=mac(number),
        mtu=1450,
        vni=1,
        port=8472,
        local=address(number),
        underlay_mtu=1500,
        fdb={address(other): mac(other) for other in peers},
        neighbours={cidr(other).removesuffix("/24"): mac(other) for other in peers},
    )
    modules = dict.fromkeys(("vxlan", "ip_tables", "ip_set", "nf_conntrack", "br_netfilter"), "loaded")
    return NodeReport(
        taken="2026-11-27T00:00:00Z",
        kernel="6.8.0-51-generic",
        modules=modules,
        rules=(Rules(backend="nft", family=4, total=900, canal=400, proxy=500),),
        tunnels=(tunnel,),
    )


def _pod(number: int, nodes: int) -> PodState:
    space = cidr(number % nodes).rsplit(".", 1)[0]
    return PodState(
        namespace=f"team-{number % 200}",
        name=f"pod-{number}",
        node=f"node-{number % nodes:04}",
        labels={"app": f"app-{number % 700}", "tier": f"t{number % 5}"},
        addresses=(f"{space}.{2 + number // nodes % 250}",),
        ports=((8080, "TCP", "http"),),
    )


def archive(nodes: int, pods: int, policies: int) -> Archive:
    """As `towpath backup` would save it."""
    objects = []
    for number in range(nodes):
        raw = clean({"apiVersion": "v1", "kind": "Node", **node(number, [])})
        objects.append(entry("nodes", "", "v1", "nodes", raw, namespaced=False))
    for name in sorted({f"team-{number % 200}" for number in range(pods)}):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        objects.append(entry("namespaces", "", "v1", "namespaces", space, namespaced=False))
    objects += [
        entry("pods", "", "v1", "pods", _saved(_pod(number, nodes)), namespaced=True)
        for number in range(pods)
    ]
    for number in range(policies):
        raw = _policy(number)
        objects.append(entry("policies", "networking.k8s.io", "v1", "networkpolicies", raw, namespaced=True))
    manifest = Manifest(
        schema=SCHEMA,
        towpath="bench",
        taken="2026-11-27T00:00:00Z",
        server=BEGINS,
        cluster="bench",
        entries=tuple(one.entry for one in objects),
    )
    return Archive(manifest, tuple(objects))


def _saved(pod: PodState) -> Raw:
    ports = [
        {"containerPort": port, "protocol": protocol, "name": name} for port, protocol, name in pod.ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
        "spec": {"nodeName": pod.node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"podIPs": [{"ip": ip} for ip in pod.addresses]},
    }


def _policy(number: int) -> Raw:
    peer = {"podSelector": {"matchLabels": {"app": f"app-{(number + 1) % 700}"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": f"team-{number % 200}"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"app-{number % 700}"}},
            "ingress": [{"from": [peer], "ports": [{"port": 8080}]}],
        },
    }
