"""What policies come to under one engine and under another: which kinds it enforces, in which order. Pure.

Calico's changes with its version: AdminNetworkPolicies are enforced from 3.29 on, baseline ones from 3.30 on,
ClusterNetworkPolicies take the place of both in 3.32 (as its charts' definitions come and go), which also
orders policies of equal ``order`` in another way (``policy.calico_order``). Towpath enforces all of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from towpath.catalogue.versions import VersionSet
from towpath.policy.calico_order import CALICO_3_31, CALICO_3_32, CalicoEra
from towpath.policy.matrix import diff
from towpath.policy.world import assemble

_VERSIONS = {
    "AdminNetworkPolicy": ">=v3.29.0 <v3.32.0",
    "BaselineAdminNetworkPolicy": ">=v3.30.0 <v3.32.0",
    "ClusterNetworkPolicy": ">=v3.32.0",
}
DEFINITIONS = {
    "AdminNetworkPolicy": "adminnetworkpolicies.policy.networking.k8s.io",
    "BaselineAdminNetworkPolicy": "baselineadminnetworkpolicies.policy.networking.k8s.io",
    "ClusterNetworkPolicy": "clusternetworkpolicies.policy.networking.k8s.io",
}
_MOST = 5  # changes that are named


class Engine(NamedTuple):
    """``without``: kinds that it does not enforce."""

    name: str
    without: frozenset[str]
    era: CalicoEra


TOWPATH = Engine("Towpath", frozenset(), CALICO_3_32)


class Verdicts(NamedTuple):
    """What was compared, and what changes of who reaches whom, in words; ``total`` of all of them."""

    before: str
    after: str
    changes: tuple[str, ...]
    total: int


def calico(version: str) -> Engine:
    """Of a version as ``v3.29.2`` or an image's tag. Raises ValueError."""
    without = frozenset(kind for kind, versions in _VERSIONS.items() if version not in VersionSet(versions))
    era = CALICO_3_32 if version in VersionSet(">=v3.32.0") else CALICO_3_31
    return Engine(f"Calico {version.partition('-')[0]}", without, era)


def alike(before: Engine, after: Engine) -> bool:
    """Whether no policy at all can mean something else."""
    return before[1:] == after[1:]


def verdicts(objects: Iterable[Mapping[str, Any]], before: Engine, after: Engine) -> Verdicts:
    """All pods, namespaces and policies of a cluster, judged under both."""
    raws = list(objects)
    worlds = [
        assemble((raw for raw in raws if raw.get("kind") not in one.without), era=one.era).world
        for one in (before, after)
    ]
    found = diff(*worlds).changes
    told = [
        f"{change.source} → {change.destination}"
        + (f": now allowed {change.added}" if change.added else "")
        + (f": now denied {change.removed}" if change.removed else "")
        for change in found
        if not (change.source.members == change.destination.members and len(change.source.members) == 1)
    ]
    return Verdicts(before.name, after.name, tuple(told[:_MOST]), len(told))
