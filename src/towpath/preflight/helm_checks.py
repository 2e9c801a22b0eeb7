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


def _values(at: Situation) -> Iterator[Finding]:
    """6: what HelmChartConfigs set fits the target's chart, and which of its defaults change."""
    yield from _pins(at)
    if at.comparison is None:
        if at.inventory.configs:
            raise Untold(
                "the cluster's release is not in the catalogue: which keys its chart had is not known"
            )
        return
    has = {chart.name for chart in at.inventory.charts}
    for chart in at.comparison.charts:
        own = _keys(at.inventory.configs.get(chart.name, ""))
        where = f"HelmChartConfig/kube-system/{chart.name}"
        for key, (before, after) in chart.defaults.items():
            if key in own and after is None:
                told = f"sets {key}, which {chart.name} {chart.version.after} has no more"
                yield finding("TP7343", where, told, "find out what took its place, and set that", "warning")
            elif chart.name in has and before is not None and after is not None:
                kept = "; the HelmChartConfig sets it" if key in own else ""
                told = f"default of {key} goes from {before!r} to {after!r}{kept}"
                fix = "set what the cluster needs in a HelmChartConfig"
                yield finding("TP7344", f"HelmChart/kube-system/{chart.name}", told, fix, "info")


def _keys(text: str) -> frozenset[str]:
    """``a.b.c`` of what is set; none of what cannot be read, which ``_pins`` tells."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return frozenset()

    def walk(part: Any, at: str) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.items():
                yield from walk(value, f"{at}.{key}".lstrip("."))
        elif at:
            yield at

    return frozenset(walk(values, ""))


def _pins(at: Situation) -> Iterator[Finding]:
    """A HelmChartConfig pins no image that is not the target's."""
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
    """8: etcd was saved not long ago, so that it can be restored, and not on its own node alone."""
    if at.inventory.snapshots is None:
        raise Untold("the server does not tell of etcd's snapshots (no ETCDSnapshotFile)")
    usable = [one for one in at.inventory.snapshots if one.ready and one.taken]
    fresh = [one for one in usable if at.now - datetime.fromisoformat(one.taken) <= _FRESH]
    if not fresh:
        last = max((one.taken for one in usable), default="")
        said = f"the last that can be restored is of {last}" if last else "there is none that can be restored"
        yield finding(
            "TP7310",
            "etcd",
            f"no fresh snapshot: {said}",
            "rke2 etcd-snapshot save, and keep a copy with server/token off the node",
        )
    elif not any(one.bucket for one in fresh):
        hashes = ", ".join(sorted({one.token for one in fresh if one.token}))
        yield finding(
            "TP7345",
            "etcd",
            "fresh snapshots lie on their nodes only, as far as the cluster knows",
            "copy one off the node, with server/token" + (f" (its hash: {hashes})" if hashes else ""),
            "warning",
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
    Check(6, "what HelmChartConfigs set fits the target's chart", _values),
    Check(7, "a failed upgrade does not uninstall the network; no helm release is stuck", _policy),
    Check(8, "etcd was saved not long ago", _snapshot),
    Check(16, "all servers hold the same chart, or it is frozen", _servers),
    Check(17, "helm runs on an upgraded server", _helm_node),
)
