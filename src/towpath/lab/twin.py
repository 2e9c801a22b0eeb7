"""A twin: a lab with the nodes, pods, labels, addresses and policies of a cluster, from what was saved of it.

What is the same: names and labels of nodes and pods, which pod runs where, pod CIDRs and pod addresses (if
they lie in the lab's pod network, which is RKE2's default), namespaces, definitions, policies, networks. What
is not: pods run an echo server on the ports that they declared; nodes have the lab's addresses, and dots in
their names become dashes. Pure.
"""

import hashlib
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import msgspec

from towpath.api.flannel import BACKEND_DATA, BACKEND_TYPE, MANAGED, PUBLIC_IP, format_vtep, random_mac
from towpath.api.netconf import parse_net_conf
from towpath.api.report import PODS_BY_WIRE
from towpath.backup.archive import Archive, Saved
from towpath.desired.protection import by_wire
from towpath.install.migration import LABEL
from towpath.inventory.cluster import Inventory
from towpath.inventory.pods import NETWORKS, PodState, pod_state
from towpath.kube.kinds import Raw
from towpath.lab.kubelet_cni import FIXED
from towpath.lab.rundir import LabError
from towpath.lab.topology import (
    MAX_NODES,
    POD_NETWORK4,
    POD_NETWORK6,
    VNI,
    LabSpec,
    NodeSpec,
    internal_ips,
    lab_spec,
    net_conf,
)
from towpath.model.net import Family, within

_RESTORED = ("namespaces", "policies", "networks")
_SYSTEM = ("kube-system", "kube-public", "kube-node-lease", "default")
_ROLES = "node-role.kubernetes.io/"
_LABELS_OWN = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", LABEL)


class Source(NamedTuple):
    """What a twin is made from: labels and pod CIDRs by node, pods, and the objects that are restored."""

    nodes: dict[str, tuple[dict[str, str], tuple[str, ...]]]
    pods: tuple[PodState, ...]
    objects: tuple[Saved, ...] = ()
    definitions: tuple[Raw, ...] = ()


class Twin(NamedTuple):
    """``nodes``: name in the cluster to name in the twin. ``notes``: what is not as in the cluster."""

    spec: LabSpec
    nodes: dict[str, str]
    pods: tuple[Raw, ...]
    objects: tuple[Saved, ...]
    notes: tuple[str, ...]


def from_archive(archive: Archive) -> Source:
    """Everything that ``towpath backup`` saved."""
    by_section: dict[str, list[Saved]] = {}
    for one in archive.objects:
        by_section.setdefault(one.entry.section, []).append(one)
    nodes = {
        one.object["metadata"]["name"]: (
            one.object["metadata"].get("labels") or {},
            tuple((one.object.get("spec") or {}).get("podCIDRs") or ()),
        )
        for one in by_section.get("nodes", ())
    }
    return Source(
        nodes,
        tuple(pod_state(one.object) for one in by_section.get("pods", ())),
        tuple(one for section in _RESTORED for one in by_section.get(section, ())),
        tuple(one.object for one in by_section.get("definitions", ())),
    )


def from_inventory(found: Inventory) -> Source:
    """Nodes and pods; an inventory only counts policies."""
    nodes = {node.facts.name: (node.labels, node.pod_cidrs) for node in found.nodes}
    return Source(nodes, found.pods)


def twin(name: str, source: Source, nodes: int = 0, pods: int = 0, cni: str = "towpath") -> Twin:
    """At most ``nodes`` nodes and ``pods`` pods, 0 for all; ``cni`` as in a lab's spec. Raises LabError.

    Fewer nodes: a server stays, then those with most pods. Fewer pods: of every set of labels one stays, as
    long as there is room, since it is labels that policies select by.
    """
    if not source.nodes:
        raise LabError("there is no node in it to make a twin of")
    notes = []
    kept = _nodes(source, min(nodes or MAX_NODES, MAX_NODES))
    if len(kept) < len(source.nodes):
        notes.append(f"{len(kept)} of {len(source.nodes)} nodes")
    names = {node: node.replace(".", "-").lower()[:52].strip("-") for node in kept}
    own = _same_network(source, kept)
    if not own:
        notes.append(f"pod CIDRs are the lab's ({POD_NETWORK4}, {POD_NETWORK6})")
    specs = tuple(_node(names[node], *source.nodes[node], own=own) for node in kept)
    chosen = _pods([pod for pod in source.pods if pod.node in names], pods)
    if len(chosen) < len(source.pods):
        notes.append(f"{len(chosen)} of {len(source.pods)} pods")
    if not source.objects:
        notes.append("no policies: an inventory counts them, an archive (towpath backup) holds them")
    raw = {"nodes": [msgspec.to_builtins(one) for one in specs]}
    spec = lab_spec(raw, name=name, families=_families(source, kept), crds=source.definitions, cni=cni)
    if own and cni == "towpath":
        spec = msgspec.structs.replace(spec, nodes=tuple(_reached(spec, node) for node in spec.nodes))
    there = {one.object["metadata"]["name"] for one in source.objects if one.entry.section == "namespaces"}
    missing = sorted({pod.namespace for pod in chosen} - there - set(_SYSTEM))
    made = (*map(_namespace, missing), *(_pod(pod, names[pod.node], own=own) for pod in chosen))
    return Twin(spec, names, made, source.objects, tuple(notes))


def _nodes(source: Source, most: int) -> list[str]:
    held: dict[str, int] = {}
    for pod in source.pods:
        held[pod.node] = held.get(pod.node, 0) + 1

    def rank(node: str) -> tuple[bool, int, str]:
        return not _server(source.nodes[node][0]), -held.get(node, 0), node

    ranked = sorted(source.nodes, key=rank)
    servers = [node for node in ranked if _server(source.nodes[node][0])]
    first = servers[:1]
    agents = [node for node in ranked if node not in servers]
    return sorted([*first, *agents, *servers[1:]][:most])


def _server(labels: dict[str, str]) -> bool:
    return any(f"{_ROLES}{role}" in labels for role in ("control-plane", "master"))


def _pods(pods: list[PodState], most: int) -> list[PodState]:
    """One of each namespace and set of labels, then a second of each, until there are enough."""
    if not most or len(pods) <= most:
        return pods
    groups: dict[tuple[str, str], list[PodState]] = {}
    for pod in pods:
        labels = {key: value for key, value in pod.labels.items() if not key.endswith("-hash")}
        groups.setdefault((pod.namespace, str(sorted(labels.items()))), []).append(pod)
    turns = ((turn, index) for index, of in enumerate(groups.values()) for turn in range(len(of)))
    lists = list(groups.values())
    return [lists[index][turn] for turn, index in sorted(turns)[:most]]


def _same_network(source: Source, kept: Iterable[str]) -> bool:
    """Whether the cluster's pod CIDRs can be those of the lab's nodes."""
    cidrs = [ip_network(cidr) for node in kept for cidr in source.nodes[node][1]]
    inside = (within(cidr, POD_NETWORK4) or within(cidr, POD_NETWORK6) for cidr in cidrs)
    return bool(cidrs) and all(inside)


def _families(source: Source, kept: Iterable[str]) -> tuple[str, ...]:
    versions = {ip_network(cidr).version for node in kept for cidr in source.nodes[node][1]} or {4}
    return tuple(f"ipv{version}" for version in sorted(versions))


def _node(name: str, labels: dict[str, str], cidrs: tuple[str, ...], *, own: bool) -> NodeSpec:
    kept = {key: value for key, value in labels.items() if key not in _LABELS_OWN}
    return NodeSpec(name=name, labels=kept, pod_cidrs=cidrs if own else ())


def _reached(spec: LabSpec, node: NodeSpec) -> NodeSpec:
    """A node that says already how it is reached, as where agents start anew: none of them then has to
    compare everything with its kernel each time that one more of its peers is there.
    """
    taken = by_wire(parse_net_conf(net_conf(spec)))
    notes = {MANAGED: "true", BACKEND_TYPE: spec.backend, PODS_BY_WIRE: taken}
    for text in internal_ips(spec, node):
        family: Family = 4 if ip_address(text).version == 4 else 6
        mac = random_mac(hashlib.sha256(f"{node.name} {family}".encode()).digest()[:6])
        notes |= {PUBLIC_IP[family]: text, BACKEND_DATA[family]: format_vtep(VNI, mac)}
    return msgspec.structs.replace(node, annotations={**node.annotations, **notes})


def _namespace(name: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _pod(pod: PodState, node: str, *, own: bool) -> Raw:
    """A pod that echoes on its ports; on 8080 when it declared none, so that it can be asked something."""
    annotations = {NETWORKS: pod.networks} if pod.networks else {}
    if own and (mine := [ip for ip in pod.addresses if _ours(ip)]):
        annotations[FIXED] = ",".join(mine)
    ports = [{"containerPort": port, "protocol": protocol} for port, protocol, _ in pod.ports]
    named = [
        {**p, **({"name": name} if name else {})} for p, (_, _, name) in zip(ports, pod.ports, strict=True)
    ]
    container = {"name": "main", "image": "towpath/echo", "ports": named or [{"containerPort": 8080}]}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    meta = {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _ours(text: str) -> bool:
    address = ip_address(text)
    return address in (POD_NETWORK4 if address.version == 4 else POD_NETWORK6)
