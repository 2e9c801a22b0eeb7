"""Checks of helm-controller: what it would do with the chart, and what it is told to."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import yaml

from towpath.catalogue.model import CHARTS
from towpath.inventory.images import Image
from towpath.model.finding import Finding
from towpath.preflight.situation import Check, Situation, Untold, finding

_FRESH = timedelta(hours=12)  # RKE2 saves etcd at 00:00 and 12:00 by itself
_PENDING = ("pending-install", "pending-upgrade", "pending-rollback", "uninstalling")


def _pins(at: Situation) -> Iterator[Finding]:
    """6: a HelmChartConfig pins no image that is not the target's."""
    for name, text in sorted(at.inventory.configs.items()):
        where = f"HelmChartConfig/kube-system/{name}"
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as odd:
            problem = str(odd).splitlines()[0]
            yield finding("TP7306", where, f"its values cannot be read: {problem}", "correct the YAML")
            continue
        for key, image, tag in _tags(values):
            wanted = at.target.images.get(image)
            if wanted is not None and tag != wanted:
                yield finding(
                    "TP7307",
                    where,
                    f"{key} pins {image} to {tag}, {at.target.release} has {wanted}",
                    "remove the pin, or say on purpose that the old image stays",
                    "warning",
                )


def _tags(values: Any, at: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, image and tag, of ``{repository, tag}`` and of ``image: name:tag``."""
    if not isinstance(values, dict):
        return
    repository, tag = values.get("repository"), values.get("tag")
    if isinstance(repository, str) and isinstance(tag, str):
        yield f"{at}.tag".lstrip("."), Image.parse(repository).name, tag
    for key, value in values.items():
        where = f"{at}.{key}".lstrip(".")
        if isinstance(value, str) and "image" in str(key).lower() and Image.parse(value).tag:
            yield where, Image.parse(value).name, Image.parse(value).tag
        yield from _tags(value, where)


def _policy(at: Situation) -> Iterator[Finding]:
    """7: a failed upgrade does not uninstall the network, and no release of helm is stuck."""
    charts = [one for one in at.inventory.charts if one.name in CHARTS]
    if not charts:
        raise Untold("there is no HelmChart of the network")
    for chart in charts:
        if chart.failure_policy not in ("abort", "retry"):
            yield finding(
                "TP7308",
                f"HelmChart/kube-system/{chart.name}",
                f"failurePolicy is {chart.failure_policy or 'not set'}: a failure uninstalls the network",
                "set spec.failurePolicy: abort before the upgrade",
            )
    latest: dict[str, tuple[int, str]] = {}
    for one in at.inventory.releases:
        latest[one.name] = max(latest.get(one.name, (0, "")), (one.revision, one.status))
    for name, (revision, status) in sorted(latest.items()):
        if name in CHARTS and (status in _PENDING or status == "failed"):
            yield finding(
                "TP7309",
                f"Secret/kube-system/sh.helm.release.v1.{name}.v{revision}",
                f"helm's last record of {name} is {status}",
                "read the helm-install job; finish or roll back that release first",
            )


def _snapshot(at: Situation) -> Iterator[Finding]:
    """8: etcd was saved not long ago."""
    if at.inventory.snapshot is None:
        raise Untold("the server does not tell of etcd's snapshots (no ETCDSnapshotFile)")
    last = datetime.fromisoformat(at.inventory.snapshot) if at.inventory.snapshot else None
    if last is None or at.now - last > _FRESH:
        said = f"the last is of {at.inventory.snapshot}" if last else "there is none"
        yield finding(
            "TP7310",
            "etcd",
            f"no fresh snapshot: {said}",
            "rke2 etcd-snapshot save, and keep a copy with server/token off the node",
        )


def _servers(at: Situation) -> Iterator[Finding]:
    """16: all servers hold the same chart, or it is frozen. A server that restarts applies its own."""
    releases = {node.facts.release for node in at.inventory.nodes if node.server}
    frozen = [one.name for one in at.inventory.charts if one.frozen and one.name in CHARTS]
    if len(releases) > 1 and not frozen:
        yield finding(
            "TP7311",
            "servers",
            f"run {', '.join(sorted(releases))}: each applies its own chart when it restarts",
            "freeze the chart (rke2-canal.yaml.skip on every server) until all are of one release",
        )


def _helm_node(at: Situation) -> Iterator[Finding]:
    """17: helm last ran on a server that is not older than the others."""
    of = {node.facts.name: node.facts.release for node in at.inventory.nodes}
    newest = max((node.facts.release for node in at.inventory.nodes if node.server), default="")
    for job in at.inventory.jobs:
        if job.chart in CHARTS and of.get(job.node, newest) != newest:
            yield finding(
                "TP7312",
                f"Job/kube-system/helm-install-{job.chart}",
                f"ran on {job.node}, which is of {of[job.node]} while {newest} is there",
                "let it run on a server of the newest release: cordon the others",
                "warning",
            )


HELM_CHECKS = (
    Check(6, "no stale pins in a HelmChartConfig", _pins),
    Check(7, "a failed upgrade does not uninstall the network; no helm release is stuck", _policy),
    Check(8, "etcd was saved not long ago", _snapshot),
    Check(16, "all servers hold the same chart, or it is frozen", _servers),
    Check(17, "helm runs on an upgraded server", _helm_node),
)
