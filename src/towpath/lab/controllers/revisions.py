"""Revision numbers of a Deployment's ReplicaSets, and the end of the oldest. Pure."""

from collections.abc import Sequence

from towpath.lab.controllers.actions import Action, Delete
from towpath.lab.controllers.objects_apps import Deployment, ReplicaSet
from towpath.lab.controllers.objects_meta import Meta
from towpath.lab.controllers.resources import REPLICA_SETS

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
# Annotations of the Deployment that say nothing about its template, or are the ReplicaSet's own.
PRIVATE = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    }
)


def revision(meta: Meta) -> int:
    """The revision an object carries, 0 for none."""
    text = meta.annotation(REVISION)
    return int(text) if text.isdigit() else 0


def next_revision(old: Sequence[ReplicaSet]) -> int:
    """One more than any of ``old`` has."""
    return max((revision(s.metadata) for s in old), default=0) + 1


def inherited(deployment: Deployment) -> dict[str, str]:
    """What of the Deployment's annotations (the change cause, say) its newest ReplicaSet shares."""
    return {k: v for k, v in (deployment.metadata.annotations or {}).items() if k not in PRIVATE}


def set_annotations(deployment: Deployment, new: ReplicaSet, number: int) -> dict[str, str]:
    """Annotations the newest ReplicaSet lacks; ``number`` is the least revision it must carry."""
    wanted = inherited(deployment)
    current = revision(new.metadata)
    if current < number:
        wanted[REVISION] = str(number)
        if current:
            history = new.metadata.annotation(HISTORY)
            wanted[HISTORY] = f"{history},{current}" if history else str(current)
    return {k: v for k, v in wanted.items() if (new.metadata.annotations or {}).get(k) != v}


def surplus(deployment: Deployment, old: Sequence[ReplicaSet]) -> list[Action]:
    """Deletions of the oldest empty ReplicaSets beyond ``revisionHistoryLimit`` (10 if not given)."""
    limit = deployment.spec.revision_history_limit
    limit = 10 if limit is None else limit
    empty = [s for s in old if not s.metadata.deleting]
    extra = len(empty) - limit
    if extra <= 0:
        return []
    oldest = sorted(empty, key=lambda s: revision(s.metadata))[:extra]
    return [
        Delete(REPLICA_SETS, s.metadata.namespace, s.metadata.name, s.metadata.uid, propagation="Background")
        for s in oldest
        if not s.replicas and not s.status.replicas and s.status.observed_generation >= s.metadata.generation
    ]
