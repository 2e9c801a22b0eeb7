"""Pods with names of their own, in order: the next step of a StatefulSet. Pure.

Semantics are upstream's (kubernetes/pkg/controller/statefulset). A lab has no storage: what a volume claim
would hold is an empty folder that ends with the pod.
"""

from collections.abc import Sequence

from towpath.lab.controllers.actions import Action, Create, Emit, Patch, reference, status_patch
from towpath.lab.controllers.hashing import with_labels
from towpath.lab.controllers.objects_apps import StatefulSet
from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.objects_meta import Body
from towpath.lab.controllers.ownership import controller_reference
from towpath.lab.controllers.podstate import FINISHED, is_available, is_ready
from towpath.lab.controllers.replicaset_plan import delete_pod
from towpath.lab.controllers.resources import PODS, STATEFUL_SETS

REVISION_HASH = "controller-revision-hash"


def replicas(item: StatefulSet) -> int:
    """The wanted number; 1 where it is not given."""
    return 1 if item.spec.replicas is None else item.spec.replicas


def ordinal(item: StatefulSet, pod: Pod) -> int:
    """The number in the pod's name; -1 for a name that is not this set's."""
    parent, _, number = pod.metadata.name.rpartition("-")
    return int(number) if parent == item.metadata.name and number.isdigit() else -1


def partition(item: StatefulSet) -> int:
    """Pods below this number stay at the old revision."""
    rolling = item.spec.update_strategy.rolling_update
    return (rolling.partition or 0) if rolling else 0


def step(
    item: StatefulSet, current: tuple[str, Body], update: tuple[str, Body], pods: Sequence[Pod], now: float
) -> list[Action]:
    """The next writes on pods. ``current`` and ``update`` are (revision name, template)."""
    by_number = {ordinal(item, p): p for p in pods if ordinal(item, p) >= 0}
    wanted = replicas(item)
    ordered = item.spec.pod_management_policy != "Parallel"
    actions: list[Action] = []
    settled = True
    for number in range(wanted):
        pod = by_number.get(number)
        revision, template = current if number < partition(item) else update
        if pod is None:
            actions.append(_create(item, number, revision, template))
        elif pod.status.phase in FINISHED and not pod.metadata.deleting:
            actions.append(delete_pod(STATEFUL_SETS, item.metadata, pod))
        elif not pod.metadata.deleting and is_available(pod, item.spec.min_ready_seconds, now):
            continue
        settled = False
        if ordered:
            return actions
    for number in sorted((n for n in by_number if n >= wanted), reverse=True):
        settled = False
        if not by_number[number].metadata.deleting:
            actions.append(delete_pod(STATEFUL_SETS, item.metadata, by_number[number]))
        if ordered:
            return actions
    if settled or not ordered:
        actions += _roll(item, update[0], by_number, now)
    return actions


def _roll(item: StatefulSet, revision: str, by_number: dict[int, Pod], now: float) -> list[Action]:
    """From the highest number down, one pod at a time; none while another is not available."""
    if item.spec.update_strategy.type != "RollingUpdate":
        return []
    for number in range(replicas(item) - 1, partition(item) - 1, -1):
        pod = by_number.get(number)
        if pod is None or pod.metadata.deleting:
            return []
        if pod.metadata.label(REVISION_HASH) != revision:
            return [delete_pod(STATEFUL_SETS, item.metadata, pod)]
        if not is_available(pod, item.spec.min_ready_seconds, now):
            return []
    return []


def _create(item: StatefulSet, number: int, revision: str, template: Body) -> Create:
    meta = item.metadata
    name = f"{meta.name}-{number}"
    labels = {
        REVISION_HASH: revision,
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(number),
    }
    labelled = with_labels(template, labels)
    kept = {k: labelled["metadata"][k] for k in ("labels", "annotations") if labelled["metadata"].get(k)}
    spec: Body = {**(template.get("spec") or {}), "hostname": name, "subdomain": item.spec.service_name}
    claims = [str((c.get("metadata") or {}).get("name")) for c in item.spec.volume_claim_templates or ()]
    if claims:
        others = [v for v in spec.get("volumes") or () if v.get("name") not in claims]
        spec["volumes"] = [*others, *({"name": c, "emptyDir": {}} for c in claims)]
    owners = [controller_reference(STATEFUL_SETS, meta)]
    about = reference(STATEFUL_SETS, meta)
    done = f"create Pod {name} in StatefulSet {meta.name} successful"
    failed = f"create Pod {name} in StatefulSet {meta.name} failed error: {{error}}"
    return Create(
        PODS,
        meta.namespace,
        {"metadata": {**kept, "name": name, "ownerReferences": owners}, "spec": spec},
        event=Emit(about, "Normal", "SuccessfulCreate", done),
        failure=Emit(about, "Warning", "FailedCreate", failed),
    )


def plan_status(item: StatefulSet, current: str, update: str, pods: Sequence[Pod], now: float) -> list[Patch]:
    """The status write, if it would change anything."""
    alive = [p for p in pods if p.status.phase not in FINISHED]
    of = [p.metadata.label(REVISION_HASH) for p in alive if not p.metadata.deleting]
    ready = sum(is_ready(p) for p in alive)
    wanted, updated = replicas(item), of.count(update)
    if item.spec.update_strategy.type == "RollingUpdate" and updated == ready == len(alive) == wanted:
        current = update
    status: Body = {
        "observedGeneration": item.metadata.generation,
        "replicas": len(alive),
        "readyReplicas": ready,
        "availableReplicas": sum(is_available(p, item.spec.min_ready_seconds, now) for p in alive),
        "currentReplicas": of.count(current),
        "updatedReplicas": updated,
        "currentRevision": current,
        "updateRevision": update,
    }
    was = item.status
    written = (
        was.observed_generation,
        was.replicas,
        was.ready_replicas,
        was.available_replicas,
        was.current_replicas,
        was.updated_replicas,
        was.current_revision,
        was.update_revision,
    )
    if tuple(status.values()) == written:
        return []
    shown = ("replicas", "availableReplicas", "observedGeneration")
    return [
        status_patch(
            STATEFUL_SETS, item.metadata, {k: v or (v if k in shown else None) for k, v in status.items()}
        )
    ]
