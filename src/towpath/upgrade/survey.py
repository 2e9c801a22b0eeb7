"""Takes the inventory of a cluster through its API."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from towpath.backup.saving import identity
from towpath.backup.sections import GROUPS
from towpath.inventory import cluster, components
from towpath.inventory.cluster import Inventory
from towpath.inventory.pods import holds_addresses, pod_state
from towpath.inventory.rights import Rule, rules_of
from towpath.kube.client import Client
from towpath.kube.discovery import listable
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import CONFIG_MAPS, DAEMONSETS, NODES, PODS, Kind, Raw

T = TypeVar("T")

SYSTEM = "kube-system"
_SECRETS: Kind[Raw] = Kind(plural="secrets", type=dict)
_CHARTS: Kind[Raw] = Kind(plural="helmcharts", type=dict, group="helm.cattle.io")
_CONFIGS: Kind[Raw] = Kind(plural="helmchartconfigs", type=dict, group="helm.cattle.io")
_SNAPSHOTS: Kind[Raw] = Kind(plural="etcdsnapshotfiles", type=dict, group="k3s.cattle.io", namespaced=False)
_RBAC = "rbac.authorization.k8s.io"
_ROLES: Kind[Raw] = Kind(plural="clusterroles", type=dict, group=_RBAC, namespaced=False)
_BINDINGS: Kind[Raw] = Kind(plural="clusterrolebindings", type=dict, group=_RBAC, namespaced=False)
_NETWORK = ("rke2-canal", "rke2-multus", "rke2-flannel", "canal", "kube-flannel", "multus", "towpath")


class _Reader:
    """Lists, and remembers what it was refused."""

    def __init__(self, client: Client, progress: Callable[[str], None]) -> None:
        self._client, self._progress = client, progress
        self.left_out: list[str] = []

    async def list(
        self, kind: Kind[Raw], namespace: str = "", *, labels: str = "", absent: bool = True
    ) -> list[Raw]:
        """``absent``: a kind that the server does not have is empty, and nothing to tell of."""
        self._progress(f"reading {kind.plural}")
        try:
            return (await self._client.list(kind, namespace, label_selector=labels)).items
        except Forbidden as refused:
            self.left_out.append(str(refused))
        except NotFound as missing:
            if not absent:
                self.left_out.append(str(missing))
        return []


async def survey(client: Client, now: datetime, progress: Callable[[str], None], also: str = "") -> Inventory:
    """Everything that can be read. ``also``: a DaemonSet that belongs to the network, whatever its images.

    Raises ApiError when nodes or pods cannot be.
    """
    uid, server = await identity(client)
    reader = _Reader(client, progress)
    nodes, pods = (await client.list(NODES.raw())).items, (await client.list(PODS.raw())).items
    daemonsets = await reader.list(DAEMONSETS)
    charts, configs, secrets, maps = [
        await reader.list(_CHARTS, SYSTEM),
        await reader.list(_CONFIGS, SYSTEM),
        await reader.list(_SECRETS, SYSTEM, labels="owner=helm"),
        await reader.list(CONFIG_MAPS, SYSTEM),
    ]
    held = cluster.pods_by_node(pods)
    parts = components.components(daemonsets, pods, also)
    return Inventory(
        taken=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        server=server,
        cluster=uid,
        nodes=tuple(
            cluster.node_state(raw, components.node_facts(raw), held.get(raw["metadata"]["name"], 0))
            for raw in sorted(nodes, key=lambda raw: str(raw["metadata"]["name"]))
        ),
        components=parts,
        charts=tuple(cluster.helm_chart(raw) for raw in charts if _named(raw)),
        configs={
            raw["metadata"]["name"]: (raw.get("spec") or {}).get("valuesContent") or ""
            for raw in configs
            if _named(raw)
        },
        releases=tuple(filter(None, map(cluster.helm_release, secrets))),
        jobs=tuple(filter(None, map(cluster.helm_job, pods))),
        config_maps={raw["metadata"]["name"]: raw.get("data") or {} for raw in maps if _named(raw)},
        objects=await _counts(client, reader),
        snapshots=await _snapshots(client),
        left_out=tuple(reader.left_out),
        pods=tuple(pod_state(raw) for raw in pods if holds_addresses(raw)),
        rights=await _rights(reader, parts),
    )


async def _rights(reader: _Reader, parts: tuple[components.Component, ...]) -> dict[str, tuple[Rule, ...]]:
    """None of any where roles cannot be read."""
    before = len(reader.left_out)
    roles, bindings = await reader.list(_ROLES), await reader.list(_BINDINGS)
    if len(reader.left_out) > before:
        return {}
    return {part.object: rules_of(part.namespace, part.account, bindings, roles) for part in parts}


def _named(raw: Raw) -> bool:
    return str(raw["metadata"]["name"]).startswith(_NETWORK)


async def _counts(client: Client, reader: _Reader) -> dict[str, int]:
    """Objects of each custom resource of the network, by the name of its definition."""
    kinds = [kind for kind, _ in await listable(client, GROUPS) if kind.group != "networking.k8s.io"]
    lists = await asyncio.gather(*(reader.list(kind) for kind in kinds))
    return {f"{kind.plural}.{kind.group}": len(found) for kind, found in zip(kinds, lists, strict=True)}


async def _snapshots(client: Client) -> tuple[cluster.EtcdSnapshot, ...] | None:
    """What is known of etcd's; None where the server does not tell."""
    try:
        found = (await client.list(_SNAPSHOTS)).items
    except (Forbidden, NotFound):
        return None
    return tuple(map(cluster.etcd_snapshot, found))
