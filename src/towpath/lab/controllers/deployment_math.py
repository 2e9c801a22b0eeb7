"""The arithmetic of a rolling update: how many pods each ReplicaSet of a Deployment should have. Pure."""

import math
from collections.abc import Sequence

from towpath.lab.controllers.objects_apps import Deployment, ReplicaSet
from towpath.lab.controllers.objects_meta import parse_time

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


def portion(value: int | str | None, total: int, default: int | str, *, up: bool) -> int:
    """A count, or a percentage of ``total`` rounded ``up`` or down; what cannot be read counts as 0."""
    value = default if value is None else value
    if isinstance(value, int):
        return value
    try:
        exact = float(value.removesuffix("%")) * total / 100
    except ValueError:
        return 0
    return math.ceil(exact) if up else math.floor(exact)


def replicas(deployment: Deployment) -> int:
    """The wanted number; 1 where it is not given."""
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def bounds(deployment: Deployment) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts. Both 0 would never move, so that becomes one unavailable."""
    if deployment.spec.strategy.type != "RollingUpdate":
        return 0, 0
    rolling, total = deployment.spec.strategy.rolling_update, replicas(deployment)
    surge = portion(rolling.max_surge if rolling else None, total, "25%", up=True)
    unavailable = portion(rolling.max_unavailable if rolling else None, total, "25%", up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def new_size(deployment: Deployment, sets: Sequence[ReplicaSet], current: int) -> int:
    """Size of the new ReplicaSet (now ``current``), given all of the Deployment's ``sets``."""
    wanted = replicas(deployment)
    if deployment.spec.strategy.type == "Recreate":
        return wanted
    surge, _ = bounds(deployment)
    room = wanted + surge - sum(s.replicas for s in sets)
    return current if room <= 0 else current + max(0, min(room, wanted - current))


def shrink_old(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """New sizes (by name) of the old ReplicaSets that a rolling update may make smaller now.

    Unhealthy old pods go first, since they serve nobody; then the oldest sets, as availability allows.
    """
    sizes = {s.metadata.name: s.replicas for s in old if s.replicas}
    if not sizes:
        return {}
    _, unavailable = bounds(deployment)
    floor = replicas(deployment) - unavailable
    budget = sum(sizes.values()) + new.replicas - floor - (new.replicas - new.status.available_replicas)
    if budget <= 0:
        return {}
    ordered = by_age([s for s in old if s.replicas])
    for item in ordered:
        unhealthy = min(budget, item.replicas - item.status.available_replicas)
        if unhealthy > 0:
            sizes[item.metadata.name] -= unhealthy
            budget -= unhealthy
    spare = sum(s.status.available_replicas for s in (*old, new)) - floor
    for item in ordered:
        cut = min(max(spare, 0), sizes[item.metadata.name])
        sizes[item.metadata.name] -= cut
        spare -= cut
    return {s.metadata.name: sizes[s.metadata.name] for s in ordered if sizes[s.metadata.name] != s.replicas}


def proportional(deployment: Deployment, active: Sequence[ReplicaSet]) -> dict[str, int]:
    """Sizes (by name) when the Deployment is scaled in the middle of a rollout: each gets its share.

    The rounding rest goes to the largest set (the newest of equals when growing, the oldest when shrinking).
    """
    wanted = replicas(deployment)
    surge, _ = bounds(deployment)
    change = (wanted + surge if wanted > 0 else 0) - sum(s.replicas for s in active)
    sign = 1 if change > 0 else -1
    ordered = sorted(
        active,
        key=lambda s: (-s.replicas, -sign * parse_time(s.metadata.creation_timestamp), s.metadata.name),
    )
    sizes = {s.metadata.name: s.replicas for s in ordered}
    left = change
    for item in ordered:
        share = _share(item, deployment, surge)
        step = sign * min(abs(share), abs(left)) if share * sign > 0 else 0
        sizes[item.metadata.name] += step
        left -= step
    if ordered and left:
        first = ordered[0].metadata.name
        sizes[first] = max(0, sizes[first] + left)
    return sizes


def _share(item: ReplicaSet, deployment: Deployment, surge: int) -> int:
    wanted = replicas(deployment)
    if wanted == 0:
        return -item.replicas
    try:
        before = int(item.metadata.annotation(MAXIMUM, "0"))
    except ValueError:
        before = 0
    before = before or deployment.status.replicas
    if before <= 0:
        return 0
    return round(item.replicas * (wanted + surge) / before) - item.replicas


def by_age(sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Oldest first, by name where created in the same second."""
    return sorted(sets, key=lambda s: (parse_time(s.metadata.creation_timestamp), s.metadata.name))
