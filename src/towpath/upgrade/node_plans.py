"""Plans for Rancher's system-upgrade-controller that upgrade RKE2's nodes and not their pod network. Pure.

The controller runs a Job on each node: servers one by one, then agents (``prepare`` waits for the servers'
plan). A server that starts anew writes its own chart of the network, and helm would roll it at once, over all
nodes and without gates (docs.rke2.io, automated upgrades; helm-controller). So the servers' Jobs begin with a
look whether the charts are frozen, and fail where they are not: no node is upgraded then.
"""

from typing import Any

from towpath.upgrade.charts import UNMANAGED
from towpath.upgrade.window import Window

NAMESPACE, ACCOUNT = "system-upgrade", "system-upgrade"
_UPGRADE, _KUBECTL = "rancher/rke2-upgrade", "rancher/kubectl"
_ROLE = "node-role.kubernetes.io/control-plane"
_RBAC = "rbac.authorization.k8s.io"
_LABELS = {"app.kubernetes.io/managed-by": "towpath"}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
Raw = dict[str, Any]


def node_plans(release: str, charts: tuple[str, ...], *, drain: bool, window: str = "") -> list[Raw]:
    """The servers' plan and the agents'. ``charts``: those that must be frozen. Raises WindowError."""
    kubernetes = release.partition("+")[0]
    servers = _plan("rke2-server", release, "In", drain=drain, window=window)
    servers["spec"]["prepare"] = {
        "image": f"{_KUBECTL}:{kubernetes}",
        "command": ["kubectl"],
        "args": frozen_arguments(charts),
    }
    agents = _plan("rke2-agent", release, "NotIn", drain=drain, window=window)
    agents["spec"]["prepare"] = {"image": _UPGRADE, "args": ["prepare", "rke2-server"]}
    return [servers, agents]


def may_look(charts: tuple[str, ...]) -> list[Raw]:
    """Role and RoleBinding that let the controller's Jobs see whether the charts are frozen.

    Its own roles (manifests/clusterrole.yaml there) know nothing of HelmCharts. ``kubectl wait`` lists and
    watches by name, which ``resourceNames`` grants.
    """
    meta = {"name": "towpath-charts", "namespace": "kube-system", "labels": _LABELS}
    rule = {"apiGroups": ["helm.cattle.io"], "resources": ["helmcharts"], "resourceNames": list(charts)}
    rules = [{**rule, "verbs": ["get", "list", "watch"]}]
    bound = {
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    }
    version = f"{_RBAC}/v1"
    return [
        {"apiVersion": version, "kind": "Role", "metadata": meta, "rules": rules},
        {"apiVersion": version, "kind": "RoleBinding", "metadata": meta, **bound},
    ]


def frozen_arguments(charts: tuple[str, ...]) -> list[str]:
    """Of kubectl: it ends with 0 if all charts are frozen, with 1 otherwise."""
    key = UNMANAGED.replace(".", "\\.")
    named = [f"helmchart.helm.cattle.io/{name}" for name in charts]
    condition = f"--for=jsonpath={{.metadata.annotations.{key}}}=true"
    return ["wait", "-n", "kube-system", condition, "--timeout=10s", *named]


def _plan(name: str, release: str, operator: str, *, drain: bool, window: str) -> Raw:
    spec: Raw = {
        "concurrency": 1,
        "serviceAccountName": ACCOUNT,
        "cordon": True,
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"matchExpressions": [{"key": _ROLE, "operator": operator, "values": ["true"]}]},
        "upgrade": {"image": _UPGRADE},
        "version": release,
    }
    if drain:
        spec["drain"] = {"force": False, "deleteEmptydirData": True, "ignoreDaemonSets": True}
    if window:
        spec["window"] = _window(Window.parse(window))
    meta = {"name": name, "namespace": NAMESPACE, "labels": _LABELS}
    return {"apiVersion": "upgrade.cattle.io/v1", "kind": "Plan", "metadata": meta, "spec": spec}


def _window(window: Window) -> Raw:
    """As the controller's own: days, and times of day in a zone."""
    end = (window.begin + window.length) % (24 * 60)
    return {
        "days": [_DAYS[day] for day in sorted(window.days)],
        "startTime": _time(window.begin),
        "endTime": _time(end),
        "timeZone": window.zone,
    }


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
