"""One step of a Deployment's rollout: values in, writes out. Pure.

Level-triggered: each call decides the next step from what is there; the step's own effect on the
ReplicaSets brings the next call. Semantics are upstream's (kubernetes/pkg/controller/deployment).
"""

from collections.abc import Sequence

import msgspec

from towpath.lab.controllers import deployment_math as rollout
from towpath.lab.controllers.actions import Action, Create, Emit, Patch, Plan, reference
from towpath.lab.controllers.deployment_status import created_condition, plan_status
from towpath.lab.controllers.hashing import TEMPLATE_HASH, same_template, template_hash, with_labels
from towpath.lab.controllers.objects_apps import Deployment, ReplicaSet
from towpath.lab.controllers.objects_meta import Body
from towpath.lab.controllers.ownership import controller_reference
from towpath.lab.controllers.resources import DEPLOYMENTS, REPLICA_SETS
from towpath.lab.controllers.revisions import (
    REVISION,
    inherited,
    next_revision,
    revision,
    set_annotations,
    surplus,
)


def split(deployment: Deployment, sets: Sequence[ReplicaSet]) -> tuple[ReplicaSet | None, list[ReplicaSet]]:
    """The ReplicaSet of the current template (the oldest, should there be several) and all others."""
    ordered = rollout.by_age(sets)
    new = next((s for s in ordered if same_template(s.spec.template, deployment.spec.template)), None)
    return new, [s for s in ordered if s is not new]


def plan_deployment(
    deployment: Deployment,
    sets: Sequence[ReplicaSet],
    busy: frozenset[str],
    names: frozenset[str],
    now: float,
) -> Plan:
    """The next writes for ``deployment``.

    ``sets`` are the ReplicaSets it controls; ``busy`` the uids of those that still have unfinished pods,
    deleted ones on their way out included; ``names`` of every ReplicaSet of the namespace.
    """
    new, old = split(deployment, sets)
    if deployment.metadata.deleting:
        return plan_status(deployment, new, old, now)
    actions: list[Action] = []
    if new is not None:
        actions += _sync_revision(deployment, new, old)
    sizing = _scale(deployment, new, old) if deployment.spec.paused or _scaled(deployment, sets) else []
    if sizing or deployment.spec.paused:
        actions += sizing
    elif deployment.spec.strategy.type == "Recreate":
        actions += _recreate(deployment, new, old, busy, names, now)
    else:
        actions += _roll(deployment, new, old, names, now)
    creating = any(isinstance(a, Create) for a in actions)
    if deployment.spec.paused or (new is not None and rollout_complete(deployment)):
        actions += surplus(deployment, old)
    status = Plan() if creating else plan_status(deployment, new, old, now)
    return Plan((*actions, *status.actions), status.recheck)


def rollout_complete(deployment: Deployment) -> bool:
    """Every pod is of the newest template, wanted and available, by the status last written."""
    status, wanted = deployment.status, rollout.replicas(deployment)
    return (
        status.updated_replicas == status.replicas == status.available_replicas == wanted
        and status.observed_generation >= deployment.metadata.generation
    )


def _sync_revision(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> list[Action]:
    """The newest template carries the highest revision: an undo gives an old ReplicaSet a new number."""
    actions: list[Action] = []
    wanted = set_annotations(deployment, new, next_revision(old))
    body: Body = {"metadata": {"annotations": wanted}} if wanted else {}
    if new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
        body["spec"] = {"minReadySeconds": deployment.spec.min_ready_seconds}
    if body:
        actions.append(Patch(REPLICA_SETS, new.metadata.namespace, new.metadata.name, body))
    number = str(max(revision(new.metadata), next_revision(old)))
    actions += _mark(deployment, number)
    return actions


def _mark(deployment: Deployment, number: str) -> list[Action]:
    meta = deployment.metadata
    if meta.annotation(REVISION) == number:
        return []
    body = {"metadata": {"annotations": {REVISION: number}}}
    return [Patch(DEPLOYMENTS, meta.namespace, meta.name, body)]


def _scaled(deployment: Deployment, sets: Sequence[ReplicaSet]) -> bool:
    """Someone changed ``replicas`` since the ReplicaSets were last sized."""
    wanted = str(rollout.replicas(deployment))
    return any(s.replicas and s.metadata.annotation(rollout.DESIRED, wanted) != wanted for s in sets)


def _scale(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Action]:
    everything = [*old, new] if new else list(old)
    active = [s for s in everything if s.replicas]
    wanted = rollout.replicas(deployment)
    if len(active) <= 1:
        target = active[0] if active else new or (everything[-1] if everything else None)
        return resize(deployment, target, wanted) if target else []
    if new is not None and _saturated(deployment, new):
        return [a for s in old if s.replicas for a in resize(deployment, s, 0)]
    if deployment.spec.strategy.type != "RollingUpdate":
        return []
    sizes = rollout.proportional(deployment, active)
    return [a for s in active for a in resize(deployment, s, sizes[s.metadata.name])]


def _saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    wanted = rollout.replicas(deployment)
    told = new.metadata.annotation(rollout.DESIRED) == str(wanted)
    return told and new.replicas == wanted == new.status.available_replicas


def _recreate(
    deployment: Deployment,
    new: ReplicaSet | None,
    old: Sequence[ReplicaSet],
    busy: frozenset[str],
    names: frozenset[str],
    now: float,
) -> list[Action]:
    down = [a for s in old if s.replicas for a in resize(deployment, s, 0)]
    if down or any(s.metadata.uid in busy for s in old):
        return down
    if new is None:
        return _create(deployment, old, names, now)
    return resize(deployment, new, rollout.replicas(deployment))


def _roll(
    deployment: Deployment,
    new: ReplicaSet | None,
    old: Sequence[ReplicaSet],
    names: frozenset[str],
    now: float,
) -> list[Action]:
    if new is None:
        return _create(deployment, old, names, now)
    wanted = rollout.replicas(deployment)
    size = wanted if new.replicas > wanted else rollout.new_size(deployment, [*old, new], new.replicas)
    actions = resize(deployment, new, size)
    if size != new.replicas:
        return actions
    for name, smaller in rollout.shrink_old(deployment, new, old).items():
        actions += resize(deployment, next(s for s in old if s.metadata.name == name), smaller)
    return actions


def resize(deployment: Deployment, item: ReplicaSet, size: int) -> list[Action]:
    """Set the size of one ReplicaSet, and the annotations by which a later scaling is recognised."""
    marks = size_annotations(deployment)
    changed = {k: v for k, v in marks.items() if item.metadata.annotation(k) != v}
    if size == item.replicas and not changed:
        return []
    body: Body = {"metadata": {"annotations": changed}}
    event = None
    if size != item.replicas:
        body["spec"] = {"replicas": size}
        verb = "up" if size > item.replicas else "down"
        message = f"Scaled {verb} replica set {item.metadata.name} from {item.replicas} to {size}"
        event = Emit(reference(DEPLOYMENTS, deployment.metadata), "Normal", "ScalingReplicaSet", message)
    return [Patch(REPLICA_SETS, item.metadata.namespace, item.metadata.name, body, event=event)]


def size_annotations(deployment: Deployment) -> dict[str, str]:
    """``desired-replicas`` and ``max-replicas`` of the Deployment as it is now."""
    wanted = rollout.replicas(deployment)
    surge, _ = rollout.bounds(deployment)
    return {rollout.DESIRED: str(wanted), rollout.MAXIMUM: str(wanted + surge)}


def _create(
    deployment: Deployment, old: Sequence[ReplicaSet], names: frozenset[str], now: float
) -> list[Action]:
    """A ReplicaSet for the current template, of the size the rollout allows at once."""
    meta = deployment.metadata
    collisions = deployment.status.collision_count or 0
    digest = template_hash(deployment.spec.template, collisions)
    name = f"{meta.name}-{digest}"
    if name in names:  # another owner's: choose another name, and remember why
        status = {"status": {"collisionCount": collisions + 1}}
        return [Patch(DEPLOYMENTS, meta.namespace, meta.name, status, "status")]
    number = str(next_revision(old))
    size = rollout.new_size(deployment, old, 0)
    selector: Body = msgspec.to_builtins(deployment.spec.selector)
    labels = {**(selector.get("matchLabels") or {}), TEMPLATE_HASH: digest}
    template = with_labels(deployment.spec.template, {TEMPLATE_HASH: digest})
    body: Body = {
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": {**inherited(deployment), **size_annotations(deployment), REVISION: number},
            "ownerReferences": [controller_reference(DEPLOYMENTS, meta)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": {**{k: v for k, v in selector.items() if v is not None}, "matchLabels": labels},
            "template": template,
        },
    }
    regarding = reference(DEPLOYMENTS, meta)
    message = f"Scaled up replica set {name} from 0 to {size}"
    return [
        Create(
            REPLICA_SETS,
            meta.namespace,
            body,
            event=Emit(regarding, "Normal", "ScalingReplicaSet", message) if size else None,
            failure=Emit(
                regarding, "Warning", "ReplicaSetCreateError", f'Failed to create "{name}": {{error}}'
            ),
        ),
        created_condition(deployment, name, now),
        *_mark(deployment, number),
    ]
