"""A DaemonSet's status, as ``kubectl rollout status`` reads it. Pure."""

from collections.abc import Sequence

from towpath.lab.controllers.actions import Patch, status_patch
from towpath.lab.controllers.daemonset_plan import NodePods
from towpath.lab.controllers.objects_apps import DaemonSet, DaemonSetStatus
from towpath.lab.controllers.objects_meta import Body, parse_time
from towpath.lab.controllers.podstate import FINISHED, is_available, is_ready
from towpath.lab.controllers.resources import DAEMON_SETS


def plan_status(item: DaemonSet, rows: Sequence[NodePods], now: float) -> list[Patch]:
    """The status write, if it would change anything."""
    desired = current = misscheduled = ready = available = updated = 0
    for row in rows:
        pods = [p for p in (*row.new, *row.old) if p.status.phase not in FINISHED]
        if not row.suitable.run:
            misscheduled += bool(pods)
            continue
        desired += 1
        if not pods:
            continue
        current += 1
        # The oldest speaks for its node, as upstream: during a surge a node counts as updated only once
        # the old pod is gone.
        pod = min(pods, key=lambda p: parse_time(p.metadata.creation_timestamp))
        ready += is_ready(pod)
        available += is_available(pod, item.spec.min_ready_seconds, now)
        updated += pod in row.new
    wanted = DaemonSetStatus(
        current_number_scheduled=current,
        number_misscheduled=misscheduled,
        desired_number_scheduled=desired,
        number_ready=ready,
        observed_generation=item.metadata.generation,
        updated_number_scheduled=updated,
        number_available=available,
        number_unavailable=desired - available,
        collision_count=item.status.collision_count,
    )
    if wanted == item.status:
        return []
    body: Body = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        "observedGeneration": item.metadata.generation,
        "updatedNumberScheduled": updated or None,
        "numberAvailable": available or None,
        "numberUnavailable": (desired - available) or None,
    }
    return [status_patch(DAEMON_SETS, item.metadata, body)]
