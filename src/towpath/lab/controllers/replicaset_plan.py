"""How a ReplicaSet gets the number of pods it wants. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from towpath.lab.controllers.actions import Action, Create, Delete, Emit, Plan, reference, status_patch
from towpath.lab.controllers.objects_apps import ReplicaSet
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.objects_meta import Body, Meta
from towpath.lab.controllers.ownership import controller_reference
from towpath.lab.controllers.podstate import (
    deletion_rank,
    is_active,
    is_available,
    is_ready,
    next_availability,
)
from towpath.lab.controllers.resources import PODS, REPLICA_SETS, Resource
from towpath.lab.controllers.selectors import equal

BURST = 500


def plan_replicaset(item: ReplicaSet, pods: Sequence[Pod], now: float) -> Plan:
    """Creations or deletions, and the status. ``pods`` are those it controls, finished ones included."""
    active = [p for p in pods if is_active(p)]
    actions: list[Action] = []
    if not item.metadata.deleting:
        missing = item.replicas - len(active)
        if missing > 0:
            template = item.spec.template
            body = pod_body(REPLICA_SETS, item.metadata, template)
            actions += [create_pod(REPLICA_SETS, item.metadata, body)] * min(missing, BURST)
        else:
            actions += [delete_pod(REPLICA_SETS, item.metadata, p) for p in superfluous(active, -missing)]
    status = _status(item, active, now)
    if status:
        actions.append(status_patch(REPLICA_SETS, item.metadata, status))
    return Plan(tuple(actions), next_availability(active, item.spec.min_ready_seconds, now))


def superfluous(active: Sequence[Pod], count: int) -> list[Pod]:
    """The ``count`` pods that are missed least."""
    if count <= 0:
        return []
    on_node = Counter(p.spec.node_name for p in active)
    return sorted(active, key=lambda p: deletion_rank(p, on_node[p.spec.node_name]))[:count]


def _status(item: ReplicaSet, active: Sequence[Pod], now: float) -> Body | None:
    """The status to write, None if it is written already."""
    labels = (item.spec.template.get("metadata") or {}).get("labels")
    counts = {
        "replicas": len(active),
        "fullyLabeledReplicas": sum(equal(labels, p.metadata.labels or {}) for p in active),
        "readyReplicas": sum(is_ready(p) for p in active),
        "availableReplicas": sum(is_available(p, item.spec.min_ready_seconds, now) for p in active),
        "observedGeneration": item.metadata.generation,
    }
    was = item.status
    written = {
        "replicas": was.replicas,
        "fullyLabeledReplicas": was.fully_labeled_replicas,
        "readyReplicas": was.ready_replicas,
        "availableReplicas": was.available_replicas,
        "observedGeneration": was.observed_generation,
    }
    if counts == written:
        return None
    return {k: v or None if k not in ("replicas", "observedGeneration") else v for k, v in counts.items()}


def pod_body(owner_resource: Resource[Any], owner: Meta, template: Body) -> Body:
    """A pod as the template says, owned by ``owner``; the API server completes its name."""
    meta = template.get("metadata") or {}
    kept = {k: meta[k] for k in ("labels", "annotations", "finalizers") if meta.get(k)}
    return {
        "metadata": {
            **kept,
            "generateName": f"{owner.name}-",
            "ownerReferences": [controller_reference(owner_resource, owner)],
        },
        "spec": template.get("spec") or {},
    }


def create_pod(owner_resource: Resource[Any], owner: Meta, body: Body) -> Create:
    """Create a pod and tell its owner's events."""
    about = reference(owner_resource, owner)
    return Create(
        PODS,
        owner.namespace,
        body,
        event=Emit(about, "Normal", "SuccessfulCreate", "Created pod: {name}"),
        failure=Emit(about, "Warning", "FailedCreate", "Error creating: {error}"),
    )


def delete_pod(owner_resource: Resource[Any], owner: Meta, pod: Pod) -> Delete:
    """Delete a pod and tell its owner's events."""
    event = Emit(reference(owner_resource, owner), "Normal", "SuccessfulDelete", "Deleted pod: {name}")
    return Delete(PODS, pod.metadata.namespace, pod.metadata.name, pod.metadata.uid, event=event)
