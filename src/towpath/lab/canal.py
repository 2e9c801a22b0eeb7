"""A stand-in for RKE2's ``rke2-canal``: the same objects in the API, with nothing that touches the network.

What the upgrade's Kubernetes side looks at is as the chart has it (names, labels, containers, images, update
strategy, grace period); the containers only wait. Facts: chart v3.29.2-build2025021800.
"""

import json
from typing import Any

from towpath.catalogue.model import Catalogue, Release

NAMESPACE, NAME = "kube-system", "rke2-canal"
CONTAINERS = {
    "install-cni": "hardened-calico",
    "flexvol-driver": "hardened-calico",
    "calico-node": "hardened-calico",
    "kube-flannel": "hardened-flannel",
}
_INIT = ("install-cni", "flexvol-driver")
_WAIT = ["sleep", "infinity"]


def objects(catalogue: Catalogue, release: str, *, strategy: str = "RollingUpdate") -> list[dict[str, Any]]:
    """ConfigMap and DaemonSet of a release. Raises CatalogueError for one that is not known."""
    known = catalogue.release(release)
    return [config_map(), daemonset(known, strategy)]


def image(release: Release, name: str) -> str:
    """``rancher/hardened-calico:v3.29.2-build20250218``."""
    return f"rancher/{name}:{release.images[name]}"


def daemonset(release: Release, strategy: str = "RollingUpdate") -> dict[str, Any]:
    """The DaemonSet of the chart."""
    labels = {"k8s-app": "canal"}
    containers = [{"name": name, "image": image(release, of)} for name, of in CONTAINERS.items()]
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
        "initContainers": [{**c, "command": ["true"]} for c in containers if c["name"] in _INIT],
        "containers": [{**c, "command": _WAIT} for c in containers if c["name"] not in _INIT],
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


def config_map() -> dict[str, Any]:
    """``rke2-canal-config`` with the chart's own values."""
    net_conf = {
        "Network": "10.42.0.0/16",
        "EnableIPv6": True,
        "IPv6Network": "fd00:10:42::/56",
        "EnableNFTables": False,
        "Backend": {"Type": "vxlan"},
    }
    data = {
        "typha_service_name": "none",
        "canal_iface": "",
        "canal_iface_regex": "",
        "masquerade": "true",
        "veth_mtu": "1450",
        "net-conf.json": json.dumps(net_conf, indent=2),
    }
    meta = {"name": f"{NAME}-config", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
