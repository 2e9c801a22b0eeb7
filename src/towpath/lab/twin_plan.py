"""The plan of a cluster, for its twin: the same images, order and gates, with the twin's nodes."""

import asyncio
import sys
from collections.abc import Collection

from msgspec.structs import replace

from towpath.inventory.cluster import Inventory
from towpath.inventory.images import Image
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import DAEMONSETS, Raw
from towpath.lab.rundir import LabError
from towpath.upgrade import plan as plans
from towpath.upgrade.plan import Gates, Measure, NodeStep, Plan

_PROBED = 20  # nodes: one machine asks on all their paths
_SOAK = 2.0  # nobody needs to wait for a stand-in to misbehave late
_WITHIN, _ASK_EVERY = 60.0, 0.2


async def stand_in(client: Client, plan: Plan) -> None:
    """The plan's DaemonSet with the images before, whose containers wait, unless the lab has it already.

    Raises ApiError, and LabError when its pods do not come to life.
    """
    try:
        await client.get(DAEMONSETS, plan.daemonset, plan.namespace)
    except NotFound:
        await client.create(DAEMONSETS, _daemonset(plan), plan.namespace)
    deadline = asyncio.get_running_loop().time() + _WITHIN
    while asyncio.get_running_loop().time() < deadline:
        status = (await client.get(DAEMONSETS, plan.daemonset, plan.namespace)).get("status") or {}
        if status.get("numberReady") and status["numberReady"] >= status.get("desiredNumberScheduled", 0):
            return
        await asyncio.sleep(_ASK_EVERY)
    raise LabError(f"the stand-in of {plan.daemonset} is not Ready in the twin")


def twin_plan(plan: Plan, found: Inventory, nodes: dict[str, str]) -> Plan:
    """``nodes``: name in the cluster to name in the twin. Raises LabError."""
    part = next(
        (c for c in found.components if (c.namespace, c.name) == (plan.namespace, plan.daemonset)), None
    )
    if part is None:
        raise LabError(f"the twin has no DaemonSet {plan.namespace}/{plan.daemonset}")
    after = {name: Image.parse(image) for name, image in plan.after.items()}
    tags = {image.name: image.tag for image in after.values()}
    try:
        made = plans.make(found, part, plan.strategy, plan.target, tags, quick(plan.gates), plan.skipped)
    except plans.PlanError as e:
        raise LabError(f"the twin: {e}") from e
    steps = in_order(plan, nodes)
    rest = tuple(step for step in made.nodes if step.node not in {one.node for one in steps})
    return plans.sign(replace(made, nodes=(*steps, *rest), source=plan.source, evict=plan.evict))


def quick(gates: Gates) -> Gates:
    """The gates of a twin."""
    return replace(gates, soak=min(gates.soak, _SOAK), canary_soak=min(gates.canary_soak, _SOAK))


def twin_measure(plan: Plan, nodes: Collection[str]) -> tuple[Measure | None, tuple[str, ...]]:
    """How the twin's nodes are probed, with this machine's own program; or None, and why not if it is wanted.

    Their kernel is this machine's, and is not looked at.
    """
    if plan.measure is None or not plan.measure.probes:
        return None, ()
    if len(nodes) > _PROBED:
        return None, (f"no probes: {len(nodes)} nodes, of which one machine can probe {_PROBED}",)
    return replace(plan.measure, image="towpath/probe", python=(sys.executable,), read=False), ()


def in_order(plan: Plan, nodes: dict[str, str]) -> tuple[NodeStep, ...]:
    """The plan's turns, of the nodes that the twin has, by their names there."""
    return tuple(NodeStep(nodes[step.node], step.reason) for step in plan.nodes if step.node in nodes)


def _daemonset(plan: Plan) -> Raw:
    labels = {"app.kubernetes.io/name": plan.daemonset}
    containers = [
        {"name": name, "image": image, "command": ["sleep", "infinity"]}
        for name, image in plan.before.items()
    ]
    spec = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "containers": containers,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": plan.daemonset, "namespace": plan.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": plan.strategy,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
