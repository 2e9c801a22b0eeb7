"""What a node's conditions mean for its taints and its pods. Pure."""

from collections.abc import Iterable, Sequence

from towpath.lab.controllers.actions import Patch
from towpath.lab.controllers.conditions import as_body, replaced
from towpath.lab.controllers.objects_core import Node, Pod, Taint
from towpath.lab.controllers.objects_meta import Body, Condition, format_time, parse_time
from towpath.lab.controllers.podstate import condition
from towpath.lab.controllers.resources import NODES, PODS
from towpath.lab.controllers.selectors import tolerates

_PREFIX = "node.kubernetes.io/"
NOT_READY, UNREACHABLE = f"{_PREFIX}not-ready", f"{_PREFIX}unreachable"
_PRESSURES = {
    "MemoryPressure": f"{_PREFIX}memory-pressure",
    "DiskPressure": f"{_PREFIX}disk-pressure",
    "PIDPressure": f"{_PREFIX}pid-pressure",
    "NetworkUnavailable": f"{_PREFIX}network-unavailable",
}
_UNSCHEDULABLE = f"{_PREFIX}unschedulable"
_OURS = frozenset({NOT_READY, UNREACHABLE, _UNSCHEDULABLE, *_PRESSURES.values()})
_HEARTBEAT = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def taints(node: Node, now: float) -> list[Taint]:
    """All taints the node should have: others' as they are, ours by its conditions."""
    conditions = node.status.conditions
    wanted: list[Taint] = []
    ready = condition(conditions, "Ready")
    stamp = format_time(now)
    if ready is None or ready.status == "False":
        wanted.append(Taint(NOT_READY, "NoSchedule"))
        if ready is not None:
            wanted.append(Taint(NOT_READY, "NoExecute", time_added=stamp))
    elif ready.status == "Unknown":
        wanted += [Taint(UNREACHABLE, "NoSchedule"), Taint(UNREACHABLE, "NoExecute", time_added=stamp)]
    for type_, key in _PRESSURES.items():
        found = condition(conditions, type_)
        if found is not None and found.status == "True":
            wanted.append(Taint(key, "NoSchedule"))
    if node.spec.unschedulable:
        wanted.append(Taint(_UNSCHEDULABLE, "NoSchedule"))
    held = {(t.key, t.effect): t for t in node.spec.taints or ()}
    others = [t for t in node.spec.taints or () if t.key not in _OURS]
    return others + [held.get((t.key, t.effect), t) for t in wanted]


def taint_patch(node: Node, now: float) -> Patch | None:
    """The write that makes the taints those, if one is needed."""
    wanted = taints(node, now)
    have = {(t.key, t.effect) for t in node.spec.taints or ()}
    if have == {(t.key, t.effect) for t in wanted}:
        return None
    bodies = [{k: v for k, v in _taint(t).items() if v} for t in wanted]
    meta = {"resourceVersion": node.metadata.resource_version, "uid": node.metadata.uid}
    return Patch(NODES, "", node.metadata.name, {"metadata": meta, "spec": {"taints": bodies or None}})


def _taint(taint: Taint) -> Body:
    return {"key": taint.key, "value": taint.value, "effect": taint.effect, "timeAdded": taint.time_added}


def heartbeat(node: Node, renewed: str) -> str:
    """A text that changes whenever the kubelet gives a sign of life: its lease, or its Ready condition."""
    ready = condition(node.status.conditions, "Ready")
    return f"{renewed} {ready.last_heartbeat_time if ready else ''}"


def silence_patch(node: Node, now: float) -> Patch | None:
    """The write that calls the kubelet's conditions unknown, if they are not already."""
    stamp = format_time(now)
    conditions = list(node.status.conditions or ())
    changed = False
    for type_ in _HEARTBEAT:
        found = condition(conditions, type_)
        if found is None and type_ != "Ready":
            continue
        if found is not None and found.status == "Unknown":
            continue
        beat = found.last_heartbeat_time if found else None
        words = "Kubelet stopped posting node status."
        new = Condition(type_, "Unknown", "NodeStatusUnknown", words, stamp, None, beat)
        conditions = replaced(conditions, new, type_)
        changed = True
    if not changed:
        return None
    body: Body = {
        "metadata": {"resourceVersion": node.metadata.resource_version, "uid": node.metadata.uid},
        "status": {"conditions": [as_body(c) for c in conditions]},
    }
    return Patch(NODES, "", node.metadata.name, body, "status")


def unready_patches(pods: Iterable[Pod], now: float) -> list[Patch]:
    """A silent node's pods are not to be sent traffic: their Ready condition becomes false."""
    patches = []
    for pod in pods:
        ready = condition(pod.status.conditions, "Ready")
        if ready is None or ready.status != "True":
            continue
        new = Condition("Ready", "False", "NodeNotReady", "Node is not ready", format_time(now))
        conditions = [as_body(c) for c in replaced(pod.status.conditions, new, "Ready")]
        meta = pod.metadata
        body: Body = {
            "metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid},
            "status": {"conditions": conditions},
        }
        patches.append(Patch(PODS, meta.namespace, meta.name, body, "status"))
    return patches


def evictions(node: Node, pods: Sequence[Pod], now: float) -> tuple[list[Pod], float | None]:
    """Pods that the node's NoExecute taints end now, and seconds until the next one's toleration ends."""
    acting = [t for t in node.spec.taints or () if t.effect == "NoExecute"]
    doomed: list[Pod] = []
    waits: list[float] = []
    for pod in pods if acting else ():
        if pod.metadata.deleting:
            continue
        until = _tolerated_until(pod, acting, now)
        if until <= now:
            doomed.append(pod)
        elif until < float("inf"):
            waits.append(until - now)
    return doomed, min(waits, default=None)


def _tolerated_until(pod: Pod, acting: Sequence[Taint], now: float) -> float:
    end = float("inf")
    for taint in acting:
        matching = [t for t in pod.spec.tolerations or () if tolerates(t, taint)]
        if not matching:
            return 0.0
        seconds = [t.toleration_seconds for t in matching if t.toleration_seconds is not None]
        if seconds:
            end = min(end, (parse_time(taint.time_added) or now) + max(0, min(seconds)))
    return end
