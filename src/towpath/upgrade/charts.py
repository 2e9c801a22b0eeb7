"""The HelmChart that a DaemonSet is of, and how helm-controller is told to leave it alone.

helm-controller (``shouldManage`` in pkg/controllers/chart) does nothing with a chart that has the annotation
``helmcharts.helm.cattle.io/unmanaged``, whatever its value; RKE2's deploy controller, which writes the chart
from its manifests, leaves annotations of others alone.
"""

from towpath.inventory.cluster import helm_chart
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import Kind, Raw
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import ChartSeen

HELM_CHARTS: Kind[Raw] = Kind(plural="helmcharts", type=dict, group="helm.cattle.io")
UNMANAGED = "helmcharts.helm.cattle.io/unmanaged"


async def chart_of(client: Client, plan: Plan) -> ChartSeen | None:
    """None when the plan's DaemonSet is of no chart, or the chart is gone. Raises ApiError."""
    if plan.chart is None:
        return None
    try:
        raw = await client.get(HELM_CHARTS, plan.chart.name, plan.namespace)
    except NotFound:
        return None
    found = helm_chart(raw)
    return ChartSeen(found.frozen, found.version)


async def set_frozen(client: Client, name: str, namespace: str, *, frozen: bool) -> None:
    """Raises ApiError; a chart that is gone needs no word."""
    try:
        annotations = {UNMANAGED: "true" if frozen else None}
        await client.patch(HELM_CHARTS, name, {"metadata": {"annotations": annotations}}, namespace)
    except NotFound:
        return
