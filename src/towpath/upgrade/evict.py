"""Takes a node out of the schedule, and its pods to other nodes, as ``kubectl drain`` does."""

import asyncio

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import Conflict, NotFound, TooManyRequests
from towpath.kube.kinds import NODES, PODS, Kind, Raw
from towpath.probe.objects import LABEL

_EVICTIONS: Kind[Raw] = PODS.raw()
_ASK_EVERY = 1.0


async def cordon(client: Client, node: str, *, on: bool) -> None:
    """Set or take away ``spec.unschedulable``; a node that is gone is neither. Raises ApiError."""
    try:
        await client.patch(NODES, node, {"spec": {"unschedulable": True if on else None}})
    except NotFound:
        return


async def drain(client: Client, node: str, within: float) -> str:
    """Evict what may live elsewhere, and wait until it is gone. Empty, or why some stay. Raises ApiError.

    Pods of DaemonSets, static pods, finished ones and probes stay. A disruption budget that forbids an
    eviction is asked again until ``within`` seconds are over. A pod that nobody would make anew stays too.
    """
    deadline = asyncio.get_running_loop().time() + within
    while True:
        found = await client.list(_EVICTIONS, "", field_selector=f"spec.nodeName={node}")
        pods = [pod for pod in found.items if _evictable(pod)]
        if alone := [_name(pod) for pod in pods if not pod["metadata"].get("ownerReferences")]:
            return f"nobody would make {', '.join(alone)} anew: move or delete it by hand"
        if not pods:
            return ""
        refused = [why for pod in pods if (why := await _evict(client, pod))]
        if asyncio.get_running_loop().time() >= deadline:
            return "; ".join(refused) or f"{', '.join(map(_name, pods))} would not end"
        await asyncio.sleep(_ASK_EVERY)


def _evictable(pod: Raw) -> bool:
    meta = pod["metadata"]
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    if "kubernetes.io/config.mirror" in (meta.get("annotations") or {}):
        return False
    if LABEL in (meta.get("labels") or {}):
        return False  # the upgrade's own probes measure what the node's turn costs
    return not any(owner.get("kind") == "DaemonSet" for owner in meta.get("ownerReferences") or ())


async def _evict(client: Client, pod: Raw) -> str:
    meta = pod["metadata"]
    if "deletionTimestamp" in meta:
        return ""
    name = {"name": meta["name"], "namespace": meta["namespace"]}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
    body["deleteOptions"] = {"preconditions": {"uid": meta["uid"]}}
    try:
        path = _EVICTIONS.path(meta["namespace"], meta["name"], "eviction")
        await client.request("POST", path, body=msgspec.json.encode(body), operation="evict")
    except TooManyRequests as e:
        return f"{_name(pod)}: {e.reason}"
    except (NotFound, Conflict):
        pass  # gone, or another has its name
    return ""


def _name(pod: Raw) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
