"""A Deployment's status: counts, and the conditions ``kubectl rollout status`` and ``wait`` read. Pure."""

from collections.abc import Sequence

from towpath.lab.controllers.actions import Action, Patch, Plan, soonest, status_patch
from towpath.lab.controllers.conditions import as_body, make, replaced
from towpath.lab.controllers.deployment_math import bounds, replicas
from towpath.lab.controllers.objects_apps import Deployment, DeploymentStatus, ReplicaSet
from towpath.lab.controllers.objects_meta import Body, Condition, parse_time
from towpath.lab.controllers.podstate import condition
from towpath.lab.controllers.resources import DEPLOYMENTS

PROGRESSING, AVAILABLE = "Progressing", "Available"
NO_DEADLINE = 2**31 - 1


def plan_status(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], now: float
) -> Plan:
    """The status write, if it would change anything, and when the progress deadline must be looked at."""
    counts = _counts(deployment, new, old)
    conditions = _available(deployment, counts, now)
    progress = _progress(deployment, counts, new, now)
    conditions = replaced(conditions, progress, PROGRESSING)
    current = deployment.status
    wanted = DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        collision_count=current.collision_count,
        conditions=conditions,
        **counts,
    )
    recheck = _deadline(deployment, progress, now)
    if _same(wanted, current):
        return Plan(recheck=recheck)
    return Plan((status_patch(DEPLOYMENTS, deployment.metadata, _body(wanted)),), recheck)


def created_condition(deployment: Deployment, name: str, now: float) -> Action:
    """What is said as soon as a new ReplicaSet exists; it also restarts the progress deadline."""
    before = condition(deployment.status.conditions, PROGRESSING)
    message = f'Created new replica set "{name}"'
    new = make(PROGRESSING, "True", "NewReplicaSetCreated", message, now, before)
    conditions = replaced(deployment.status.conditions, new, PROGRESSING)
    if not has_deadline(deployment):
        conditions = replaced(deployment.status.conditions, None, PROGRESSING)
    body: Body = {
        "observedGeneration": deployment.metadata.generation,
        "conditions": [as_body(c) for c in conditions],
    }
    return Patch(
        DEPLOYMENTS, deployment.metadata.namespace, deployment.metadata.name, {"status": body}, "status"
    )


def has_deadline(deployment: Deployment) -> bool:
    """A progress deadline is set (the largest 32-bit number means none)."""
    seconds = deployment.spec.progress_deadline_seconds
    return seconds is not None and seconds != NO_DEADLINE


def _counts(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> dict[str, int]:
    everything = [*old, new] if new else list(old)
    total = sum(s.status.replicas for s in everything)
    available = sum(s.status.available_replicas for s in everything)
    wanted = sum(s.replicas for s in everything)
    return {
        "replicas": total,
        "updated_replicas": new.status.replicas if new else 0,
        "ready_replicas": sum(s.status.ready_replicas for s in everything),
        "available_replicas": available,
        "unavailable_replicas": max(0, wanted - available),
    }


def _available(deployment: Deployment, counts: dict[str, int], now: float) -> list[Condition]:
    _, unavailable = bounds(deployment)
    enough = counts["available_replicas"] >= replicas(deployment) - unavailable
    before = condition(deployment.status.conditions, AVAILABLE)
    status, reason, words = (
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        if enough
        else ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    )
    if before is not None and (before.status, before.reason) == (status, reason):
        return list(deployment.status.conditions or ())
    new = make(AVAILABLE, status, reason, words, now, before)
    return replaced(deployment.status.conditions, new, AVAILABLE)


def _progress(
    deployment: Deployment, counts: dict[str, int], new: ReplicaSet | None, now: float
) -> Condition | None:
    """The Progressing condition; None without a deadline."""
    before = condition(deployment.status.conditions, PROGRESSING)
    if not has_deadline(deployment):
        return None
    paused = before is not None and before.reason == "DeploymentPaused"
    if deployment.spec.paused:
        if before is not None and before.reason in ("DeploymentPaused", "ProgressDeadlineExceeded"):
            return before
        return make(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", now, before)
    if paused:
        return make(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now, before)
    name = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    settled = before is not None and before.reason == "NewReplicaSetAvailable"
    if settled and counts["replicas"] == counts["updated_replicas"]:
        return before
    if _complete(deployment, counts):
        done = f"{name} has successfully progressed."
        return make(PROGRESSING, "True", "NewReplicaSetAvailable", done, now, before)
    if _moved(deployment, counts):
        return make(PROGRESSING, "True", "ReplicaSetUpdated", f"{name} is progressing.", now, before)
    if _timed_out(deployment, before, now):
        late = f"{name} has timed out progressing."
        return make(PROGRESSING, "False", "ProgressDeadlineExceeded", late, now, before)
    if before is None and new is not None:
        found = f'Found new replica set "{new.metadata.name}"'
        return make(PROGRESSING, "True", "FoundNewReplicaSet", found, now)
    return before


def _complete(deployment: Deployment, counts: dict[str, int]) -> bool:
    wanted = replicas(deployment)
    return counts["updated_replicas"] == counts["replicas"] == counts["available_replicas"] == wanted


def _moved(deployment: Deployment, counts: dict[str, int]) -> bool:
    """More pods are new, ready or available than before, or fewer are old."""
    was = deployment.status
    return (
        counts["updated_replicas"] > was.updated_replicas
        or counts["replicas"] - counts["updated_replicas"] < was.replicas - was.updated_replicas
        or counts["ready_replicas"] > was.ready_replicas
        or counts["available_replicas"] > was.available_replicas
    )


def _timed_out(deployment: Deployment, before: Condition | None, now: float) -> bool:
    if before is None or before.reason in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return False
    since = parse_time(before.last_update_time)
    return now - since > (deployment.spec.progress_deadline_seconds or 0)


def _deadline(deployment: Deployment, progress: Condition | None, now: float) -> float | None:
    waiting = progress is not None and progress.reason in (
        "NewReplicaSetCreated",
        "ReplicaSetUpdated",
        "FoundNewReplicaSet",
        "DeploymentResumed",
    )
    if progress is None or not waiting:
        return None
    end = parse_time(progress.last_update_time) + (deployment.spec.progress_deadline_seconds or 0) + 1
    return soonest(max(1.0, end - now))


def _same(one: DeploymentStatus, other: DeploymentStatus) -> bool:
    def plain(conditions: list[Condition] | None) -> list[Body]:
        return sorted((as_body(c) for c in conditions or ()), key=lambda c: str(c["type"]))

    fields = [f for f in DeploymentStatus.__struct_fields__ if f != "conditions"]
    return all(getattr(one, f) == getattr(other, f) for f in fields) and plain(one.conditions) == plain(
        other.conditions
    )


def _body(status: DeploymentStatus) -> Body:
    body: Body = {
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas or None,
        "updatedReplicas": status.updated_replicas or None,
        "readyReplicas": status.ready_replicas or None,
        "availableReplicas": status.available_replicas or None,
        "unavailableReplicas": status.unavailable_replicas or None,
        "conditions": [as_body(c) for c in status.conditions or ()],
    }
    return body
