"""An inventory: what a cluster's pod network consists of and how it is set up, at one time, as one value.

``towpath inventory -o json`` prints it; preflight reads it, live or from a file, and so does a twin.
"""

import base64
import binascii
import io
import tarfile
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

from towpath.inventory.components import Component, NodeFacts
from towpath.inventory.node_report import NodeReport
from towpath.inventory.pods import PodState
from towpath.inventory.rights import Rule

Raw = dict[str, Any]

_SERVER = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_FLANNEL = "flannel.alpha.coreos.com/"
_MANIFEST = 4 << 20  # of a chart, bytes unpacked; Chart.yaml is its first small file


class NodeState(msgspec.Struct, frozen=True):
    """A node beyond what runs on it. ``pods`` hold addresses of ``pod_cidrs``; ``flannel``: annotations.

    ``report`` is what was found on the node itself; None when nobody looked, or ``unread`` says why not.
    """

    facts: NodeFacts
    server: bool
    schedulable: bool
    pod_cidrs: tuple[str, ...]
    flannel: dict[str, str]
    pods: int
    report: NodeReport | None = None
    unread: str = ""
    labels: dict[str, str] = {}


class HelmChart(msgspec.Struct, frozen=True):
    """A HelmChart of helm-controller. ``failure_policy`` empty: the controller's own (reinstall or retry)."""

    name: str
    version: str
    failure_policy: str
    frozen: bool
    values: str = ""


class HelmRelease(msgspec.Struct, frozen=True):
    """Helm's own record. ``status`` deployed, superseded, failed, pending-upgrade…"""

    name: str
    revision: int
    status: str


class HelmJob(msgspec.Struct, frozen=True):
    """A pod that ran helm, and where. ``phase`` as of the pod."""

    chart: str
    node: str
    phase: str


class EtcdSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """``taken`` RFC 3339. ``ready`` to be restored; ``bucket``: it lies outside the node (S3).

    ``token``: hash of the server token that it needs, empty where that is not told.
    """

    taken: str
    ready: bool
    bucket: bool
    token: str = ""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """``objects``: of each custom resource definition of the network, how many there are.

    ``snapshots``: etcd's, None where that cannot be told.
    ``configs``: HelmChartConfig by name to its values. ``rights``: a component's object to the rules of its
    service account; empty when roles could not be read. ``left_out``: what could not be read, and why.
    """

    taken: str
    server: str
    cluster: str
    nodes: tuple[NodeState, ...]
    components: tuple[Component, ...]
    charts: tuple[HelmChart, ...] = ()
    configs: dict[str, str] = {}
    releases: tuple[HelmRelease, ...] = ()
    jobs: tuple[HelmJob, ...] = ()
    config_maps: dict[str, dict[str, str]] = {}
    objects: dict[str, int] = {}
    snapshots: tuple[EtcdSnapshot, ...] | None = None
    left_out: tuple[str, ...] = ()
    pods: tuple[PodState, ...] = ()
    rights: dict[str, tuple[Rule, ...]] = {}

    @property
    def node_releases(self) -> dict[str, list[str]]:
        """Kubelet's version to the nodes that have it."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            found.setdefault(node.facts.release, []).append(node.facts.name)
        return found


def node_state(raw: Raw, facts: NodeFacts, pods: int) -> NodeState:
    """Of a ``v1`` Node; ``pods`` are those on it that are not host-networked and not finished."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return NodeState(
        facts=facts,
        server=any(label in labels for label in _SERVER),
        schedulable=not spec.get("unschedulable", False),
        pod_cidrs=tuple(cidrs),
        flannel={k.removeprefix(_FLANNEL): v for k, v in annotations.items() if k.startswith(_FLANNEL)},
        pods=pods,
        labels=labels,
    )


def pods_by_node(pods: Iterable[Raw]) -> dict[str, int]:
    """How many pods hold an address on each node."""
    found: dict[str, int] = {}
    for pod in pods:
        spec, status = pod.get("spec") or {}, pod.get("status") or {}
        if not spec.get("hostNetwork") and status.get("phase") not in ("Succeeded", "Failed"):
            node = spec.get("nodeName", "")
            found[node] = found.get(node, 0) + 1
    return found


def etcd_snapshot(raw: Raw) -> EtcdSnapshot:
    """Of a ``k3s.cattle.io/v1`` ETCDSnapshotFile. An empty file is not ready, whatever it says."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    hashes = (
        value
        for key, value in (meta.get("annotations") or {}).items()
        if key.endswith(".cattle.io/snapshot-token-hash")
    )
    return EtcdSnapshot(
        taken=str(status.get("creationTime") or ""),
        ready=bool(status.get("readyToUse", True)) and str(status.get("size") or "0") != "0",
        bucket=str(spec.get("location") or "").startswith("s3:"),
        token=str(next(hashes, "")),
    )


def helm_chart(raw: Raw) -> HelmChart:
    """Of a ``helm.cattle.io/v1`` HelmChart. One that helm-controller is told to leave alone is frozen."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    annotations = meta.get("annotations") or {}
    return HelmChart(
        name=meta["name"],
        version=spec.get("version") or chart_version(spec.get("chartContent") or ""),
        failure_policy=spec.get("failurePolicy") or "",
        frozen="helmcharts.helm.cattle.io/unmanaged" in annotations,
        values=spec.get("valuesContent") or "",
    )


def chart_version(content: str) -> str:
    """Of a chart as RKE2 embeds it: a gzipped tar in base64. Empty where it cannot be read."""
    try:
        data = base64.b64decode(content, validate=True)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as tar:
            for member in tar:
                if (
                    member.name.count("/") == 1
                    and member.name.endswith("/Chart.yaml")
                    and member.size < _MANIFEST
                ):
                    file = tar.extractfile(member)
                    chart = yaml.safe_load(file.read()) if file is not None else None
                    return str(chart.get("version", "")) if isinstance(chart, dict) else ""
    except (binascii.Error, tarfile.TarError, yaml.YAMLError, EOFError, OSError, ValueError):
        pass
    return ""


def helm_release(raw: Raw) -> HelmRelease | None:
    """Of a Secret of type ``helm.sh/release.v1``: its labels say it all."""
    labels = raw["metadata"].get("labels") or {}
    if labels.get("owner") != "helm" or not str(labels.get("version", "")).isdigit():
        return None
    return HelmRelease(labels.get("name", ""), int(labels["version"]), labels.get("status", ""))


def helm_job(raw: Raw) -> HelmJob | None:
    """Of a pod, if it is one that runs helm for a chart."""
    chart = (raw["metadata"].get("labels") or {}).get("helmcharts.helm.cattle.io/chart", "")
    if not chart:
        return None
    return HelmJob(
        chart, (raw.get("spec") or {}).get("nodeName", ""), (raw.get("status") or {}).get("phase", "")
    )
