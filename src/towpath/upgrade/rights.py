"""What an upgrade needs to be allowed to do, asked of the API server before anything is begun.

A right that is missing in the middle of a run would leave it standing there.
"""

import asyncio
from typing import NamedTuple

from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import Kind, Raw
from towpath.upgrade.plan import Plan

_SYSTEM = "kube-system"
_REVIEWS: Kind[Raw] = Kind(
    plural="selfsubjectaccessreviews", type=dict, group="authorization.k8s.io", namespaced=False
)
_RBAC = "rbac.authorization.k8s.io"


class Right(NamedTuple):
    """``resource`` as kubectl names it (``pods/eviction``); ``namespace`` empty: in all, or of none."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}{where}"


def needed(plan: Plan) -> tuple[Right, ...]:
    """By the plan: what is not wanted needs no right. Pure."""
    space = plan.namespace
    found = [Right(verb, "configmaps", "", _SYSTEM) for verb in ("get", "create", "update")]
    found += [
        Right(v, "leases", "coordination.k8s.io", _SYSTEM) for v in ("get", "create", "update", "patch")
    ]
    found.append(Right("get", "daemonsets", "apps", space))
    if plan.migration is None:
        found.append(Right("patch", "daemonsets", "apps", space))
    found += [Right(verb, "pods", "", space) for verb in ("get", "list", "create", "delete")]
    found += [Right("get", "pods/log", "", space), Right("list", "nodes")]
    if plan.evict or plan.migration is not None:
        found.append(Right("patch", "nodes"))
    if plan.evict == "drain":
        found += [Right("list", "pods"), Right("create", "pods/eviction")]
    if plan.chart is not None:
        found += [Right(verb, "helmcharts", "helm.cattle.io", space) for verb in ("get", "patch")]
    if plan.migration is not None:
        found.append(Right("create", "serviceaccounts", "", space))
        found += [Right("create", kind, _RBAC) for kind in ("clusterroles", "clusterrolebindings")]
    if plan.measure is not None and plan.measure.probes:
        found += [Right(verb, "namespaces") for verb in ("get", "list", "create", "delete")]
        found += [Right(verb, "services") for verb in ("get", "list", "create")]
        found += [Right(verb, "daemonsets", "apps") for verb in ("get", "create")]
        found += [Right(verb, "pods") for verb in ("get", "list", "create", "delete")]
        found.append(Right("get", "pods/log"))
        found.append(Right("create", "networkpolicies", "networking.k8s.io"))
    return tuple(dict.fromkeys(found))


async def missing(client: Client, plan: Plan) -> list[str]:
    """Those that the server does not grant, in words. Raises ApiError.

    Empty where it answers no such question: then each refusal is told when it comes.
    """
    rights = needed(plan)
    try:
        granted = await asyncio.gather(*(_granted(client, right) for right in rights))
    except (Forbidden, NotFound):
        return []
    return [str(right) for right, yes in zip(rights, granted, strict=True) if not yes]


async def _granted(client: Client, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    asked = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": part}
    attributes = {**asked, "namespace": right.namespace}
    answer = await client.create(_REVIEWS, {"metadata": {}, "spec": {"resourceAttributes": attributes}})
    return bool((answer.get("status") or {}).get("allowed"))
