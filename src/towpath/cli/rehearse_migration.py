"""The plan of a migration for a twin, whose network is Canal's from the start."""

import asyncio

from msgspec.structs import replace

from towpath.cli.upgrade_migrate import MIGRATIONS, moving_pod, networks
from towpath.install.migration import without_taken
from towpath.inventory.cluster import Inventory
from towpath.kube.client import Client
from towpath.kube.kinds import DAEMONSETS
from towpath.lab.rundir import LabError
from towpath.lab.twin_plan import in_order, quick
from towpath.upgrade import plan as plans
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import Direction

TARGETS = {direction: target for target, direction in MIGRATIONS.items()}
_WITHIN, _ASK_EVERY = 300.0, 0.5


async def prepare(client: Client, found: Inventory) -> None:
    """Have Canal's DaemonSet keep off nodes that are Towpath's, as the guide says, and wait for its roll.

    Raises KubeError, LabError.
    """
    canal, _ = networks(found)
    change = {"spec": {"template": {"spec": {"affinity": without_taken()}}}}
    await client.patch(DAEMONSETS, canal.name, change, canal.namespace)
    deadline = asyncio.get_running_loop().time() + _WITHIN
    while True:
        raw = await client.get(DAEMONSETS, canal.name, canal.namespace)
        status = raw.get("status") or {}
        wanted = status.get("desiredNumberScheduled", 0)
        seen = status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
        if seen and wanted and wanted == status.get("updatedNumberScheduled") == status.get("numberReady"):
            return
        if asyncio.get_running_loop().time() > deadline:
            raise LabError(f"{canal.object} has not rolled over the nodes of the twin")
        await asyncio.sleep(_ASK_EVERY)


async def migration_plan(
    client: Client, plan: Plan, found: Inventory, nodes: dict[str, str], direction: Direction
) -> Plan:
    """``nodes``: name in the cluster to name in the twin. Raises KubeError.

    ``direction`` is not the plan's where nodes must be Towpath's first, which is not of the rehearsal.
    """
    assert plan.migration is not None  # noqa: S101 (who asks has looked)
    canal, towpath = networks(found)
    part, other = (towpath, canal) if direction == "takeover" else (canal, towpath)
    raw = await client.get(DAEMONSETS, towpath.name, towpath.namespace)
    gates = quick(plan.gates)
    moving = replace(
        plan.migration,
        direction=direction,
        canal=canal.name,
        towpath=towpath.name,
        pod=await moving_pod(client, raw, "", gates, in_lab=True),
    )
    images = {name: plans.full_name(image) for name, image in sorted(part.wanted.items())}
    return plans.sign(
        replace(
            plan,
            cluster=found.cluster,
            namespace=part.namespace,
            daemonset=part.name,
            source=other.name,
            target=TARGETS[direction],
            images={name: (image, image) for name, image in images.items()},
            strategy={"type": part.strategy},
            nodes=in_order(plan, nodes),
            gates=gates,
            measure=None,
            window="",
            managers=(),
            rehearsal=None,
            migration=moving,
        )
    )
