"""``rke2-canal`` as the API has it: what an upgrade's Kubernetes side looks at is as in the chart.

Names, labels, containers, images, update strategy and grace period are those of chart
v3.29.2-build2025021800. The containers only wait, so that they can stand beside another network; in a lab
whose network is Canal they are the stand-ins' programs.
"""

import json
from typing import Any

from towpath.catalogue.model import Catalogue, Release
from towpath.lab.canal.programs import BIN

NAMESPACE, NAME = "kube-system", "rke2-canal"
CONTAINERS = {
    "install-cni": "hardened-calico",
    "flexvol-driver": "hardened-calico",
    "calico-node": "hardened-calico",
    "kube-flannel": "hardened-flannel",
}
NET_CONF = {
    "Network": "10.42.0.0/16",
    "EnableIPv6": True,
    "IPv6Network": "fd00:10:42::/56",
    "EnableNFTables": False,
    "Backend": {"Type": "vxlan"},
}
_INIT = ("install-cni", "flexvol-driver")
_WAITING = {name: ["true"] if name in _INIT else ["sleep", "infinity"] for name in CONTAINERS}
_NET_CONF_FOLDER = "/etc/kube-flannel"
_WHERE = ["--node", "$(NODE_NAME)", "--kubeconfig", "$(KUBECONFIG)"]


def running(families: str) -> dict[str, list[str]]:
    """Commands that make it a network. ``families``: "4", "6" or "4,6"."""
    return {
        "install-cni": ["python3", "-m", "towpath.lab.canal.install", *_WHERE],
        "flexvol-driver": ["true"],
        "calico-node": [f"{BIN}/calico-node", "-felix", *_WHERE, "--families", families],
        "kube-flannel": [f"{BIN}/flanneld", *_WHERE, "--net-conf", f"{_NET_CONF_FOLDER}/net-conf.json"],
    }


def objects(catalogue: Catalogue, release: str, *, strategy: str = "RollingUpdate") -> list[dict[str, Any]]:
    """ConfigMap and DaemonSet of a release. Raises CatalogueError for one that is not known."""
    known = catalogue.release(release)
    return [config_map(), daemonset(known, strategy)]


def image(release: Release, name: str) -> str:
    """``rancher/hardened-calico:v3.29.2-build20250218``."""
    return f"rancher/{name}:{release.images[name]}"


def daemonset(
    release: Release,
    strategy: str = "RollingUpdate",
    commands: dict[str, list[str]] = _WAITING,
    kubeconfig: str = "",
) -> dict[str, Any]:
    """The DaemonSet of the chart. ``kubeconfig`` is a file on the nodes."""
    labels = {"k8s-app": "canal"}
    containers = [
        _container(name, image(release, of), commands[name], kubeconfig) for name, of in CONTAINERS.items()
    ]
    update: dict[str, Any] = {"type": strategy}
    if strategy == "RollingUpdate":
        update["rollingUpdate"] = {"maxUnavailable": 1}
    spec = {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 0,
        "tolerations": [
            {"effect": "NoSchedule", "operator": "Exists"},
            {"effect": "NoExecute", "operator": "Exists"},
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
        ],
        "initContainers": [c for c in containers if c["name"] in _INIT],
        "containers": [c for c in containers if c["name"] not in _INIT],
        "volumes": [{"name": "flannel-cfg", "configMap": {"name": f"{NAME}-config"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {**labels, "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": NAME, "meta.helm.sh/release-namespace": NAMESPACE},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": update,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _container(name: str, of: str, command: list[str], kubeconfig: str) -> dict[str, Any]:
    node = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    return {
        "name": name,
        "image": of,
        "command": command,
        "env": [node, *([{"name": "KUBECONFIG", "value": kubeconfig}] if kubeconfig else [])],
        "volumeMounts": [{"name": "flannel-cfg", "mountPath": _NET_CONF_FOLDER}],
    }


def config_map(net_conf: str = json.dumps(NET_CONF, indent=2)) -> dict[str, Any]:
    """``rke2-canal-config`` with the chart's own values."""
    data = {
        "typha_service_name": "none",
        "canal_iface": "",
        "canal_iface_regex": "",
        "masquerade": "true",
        "veth_mtu": "1450",
        "net-conf.json": net_conf,
    }
    meta = {"name": f"{NAME}-config", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
