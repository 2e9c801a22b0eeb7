"""What a pod's status says, in the words of the controllers that count pods."""

from collections.abc import Sequence

from towpath.lab.controllers.objects_core import Pod
from towpath.lab.controllers.objects_meta import Condition, parse_time

FINISHED = frozenset({"Succeeded", "Failed"})


def is_active(pod: Pod) -> bool:
    """Neither finished nor on its way out."""
    return pod.status.phase not in FINISHED and not pod.metadata.deleting


def condition(conditions: list[Condition] | None, type_: str) -> Condition | None:
    """The condition of that type."""
    return next((c for c in conditions or () if c.type == type_), None)


def is_ready(pod: Pod) -> bool:
    """Its Ready condition is true."""
    ready = condition(pod.status.conditions, "Ready")
    return ready is not None and ready.status == "True"


def available_at(pod: Pod, min_ready: int) -> float:
    """When the pod has been ready for ``min_ready`` seconds (0.0: at once); infinity if it is not ready."""
    if not is_ready(pod):
        return float("inf")
    if min_ready == 0:
        return 0.0
    ready = condition(pod.status.conditions, "Ready")
    since = parse_time(ready.last_transition_time) if ready else 0.0
    return since + min_ready


def is_available(pod: Pod, min_ready: int, now: float) -> bool:
    """Ready for at least ``min_ready`` seconds."""
    return available_at(pod, min_ready) <= now


def next_availability(pods: Sequence[Pod], min_ready: int, now: float) -> float | None:
    """Seconds until the next ready pod becomes available; None if there is none to wait for."""
    times = [t for t in (available_at(p, min_ready) for p in pods) if now < t < float("inf")]
    return min(times) - now if times else None


def deletion_rank(pod: Pod, colocated: int) -> tuple[object, ...]:
    """Sort key: what goes first when there are too many. Upstream's order (controller.ActivePodsWithRanks).

    Unassigned before assigned, pending before unknown before running, not ready before ready, lower
    deletion cost first, then nodes with more of the same set (``colocated``), recently ready before long
    ready, more restarts first, younger before older.
    """
    phases = {"Pending": 0, "Unknown": 1}
    ready = condition(pod.status.conditions, "Ready")
    since = parse_time(ready.last_transition_time) if ready and ready.status == "True" else 0.0
    restarts = max((s.restart_count for s in pod.status.container_statuses or ()), default=0)
    return (
        bool(pod.spec.node_name),
        phases.get(pod.status.phase, 2),
        is_ready(pod),
        _deletion_cost(pod),
        -colocated,
        -since,
        -restarts,
        -parse_time(pod.metadata.creation_timestamp),
        pod.metadata.name,
    )


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotation("controller.kubernetes.io/pod-deletion-cost", "0"))
    except ValueError:
        return 0
