"""A stand-in for helm-controller and helm: applies the HelmChart ``rke2-canal`` whenever it changes.

As the real one, it leaves a chart alone that has the annotation ``…/unmanaged``, and puts back the chart's
own images and update strategy where a DaemonSet differs. It is stricter than the real one in that it applies
again on every change of the HelmChart, the annotation's removal too; the real one keeps a Job that ran.
The chart's version says which release's objects it holds.

    python -m towpath.lab.helm KUBECONFIG
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from towpath.catalogue import load
from towpath.catalogue.model import Catalogue, Release
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.errors import KubeError, NotFound
from towpath.kube.kinds import DAEMONSETS, Kind, Raw
from towpath.lab import canal

HELM_CHARTS: Kind[Raw] = Kind(plural="helmcharts", type=dict, group="helm.cattle.io")
UNMANAGED = "helmcharts.helm.cattle.io/unmanaged"
_EVERY = 0.2


def definition() -> Raw:
    """The CustomResourceDefinition of HelmCharts, without its schema."""
    names = {
        "kind": "HelmChart",
        "listKind": "HelmChartList",
        "plural": "helmcharts",
        "singular": "helmchart",
    }
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "helmcharts.helm.cattle.io"},
        "spec": {
            "group": "helm.cattle.io",
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def chart(known: Catalogue, release: str) -> Raw:
    """The HelmChart that a server of ``release`` writes. Raises CatalogueError."""
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": canal.NAME, "namespace": canal.NAMESPACE},
        "spec": {
            "chart": "rke2-canal",
            "version": known.release(release).charts[canal.NAME],
            "failurePolicy": "abort",
            "bootstrap": True,
        },
    }


async def run(client: Client, known: Catalogue) -> None:
    """Until cancelled."""
    seen = ""
    while True:
        try:
            raw = await client.get(HELM_CHARTS, canal.NAME, canal.NAMESPACE)
            if raw["metadata"]["resourceVersion"] != seen:
                await reconcile(client, known, raw)
                seen = raw["metadata"]["resourceVersion"]
        except KubeError:
            seen = ""  # not there yet, or no answer: looked at afresh
        await asyncio.sleep(_EVERY)


async def reconcile(client: Client, known: Catalogue, raw: Raw) -> None:
    """Make the DaemonSet what the chart holds, if the chart is not frozen. Raises ApiError."""
    if UNMANAGED in (raw["metadata"].get("annotations") or {}):
        return
    release = _release(known, raw["spec"]["version"])
    wanted = canal.daemonset(release)
    try:
        await client.patch(DAEMONSETS, canal.NAME, _patch(wanted), canal.NAMESPACE, type="strategic")
    except NotFound:
        await client.create(DAEMONSETS, wanted, canal.NAMESPACE)


def _patch(wanted: dict[str, Any]) -> dict[str, Any]:
    strategy = wanted["spec"]["updateStrategy"]
    whole = {"$retainKeys": list(strategy), **strategy}
    return {"spec": {"updateStrategy": whole, "template": wanted["spec"]["template"]}}


def _release(known: Catalogue, version: str) -> Release:
    """The newest release with this chart: all of them have the same images."""
    return next(one for one in reversed(known.ordered) if one.charts.get(canal.NAME) == version)


async def _main(kubeconfig: Path) -> None:
    async with Client(from_files([kubeconfig]), user_agent="helm-controller") as client:
        await run(client, load.builtin())


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
