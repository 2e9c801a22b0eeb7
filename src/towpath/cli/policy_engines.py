"""The live cluster's policies under the engine that runs and under the one that is to come."""

from towpath.catalogue.model import Release
from towpath.cli.output import progress
from towpath.cli.policy_live import gather
from towpath.inventory.cluster import Inventory
from towpath.kube.client import Client
from towpath.preflight import engines
from towpath.preflight.engine_checks import running
from towpath.preflight.engines import Engine, Verdicts


async def compared(client: Client, before: Engine, after: Engine) -> Verdicts | None:
    """None where the two cannot differ. Raises ApiError."""
    if engines.alike(before, after):
        return None
    progress(f"policies under {before.name} and under {after.name}")
    raws, _ = await gather(client)
    return engines.verdicts(raws, before, after)


async def between(client: Client, found: Inventory, target: Release | None) -> Verdicts | None:
    """Of the Calico that runs and that of a release; None where there is none that can be told."""
    runs, wanted = running(found), target.components.get("calico", "") if target is not None else ""
    if not runs or not wanted:
        return None
    try:
        before, after = engines.calico(runs), engines.calico(wanted)
    except ValueError:
        return None
    return await compared(client, before, after)
