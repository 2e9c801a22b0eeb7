"""``rke2-multus`` as the API has it: names and images of chart v4.1.403; its containers only wait."""

from typing import Any

from towpath.catalogue.model import Release
from towpath.lab.canal.chart import NAMESPACE, image

NAME = "rke2-multus"


def daemonset(release: Release) -> dict[str, Any]:
    """The DaemonSet of the chart: the init container brings the standard plugins."""
    labels = {"app": NAME, "tier": "node"}
    spec = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [
            {"name": "cni-plugins", "image": image(release, "hardened-cni-plugins"), "command": ["true"]}
        ],
        "containers": [
            {
                "name": "kube-rke2-multus",
                "image": image(release, "hardened-multus-cni"),
                "command": ["sleep", "infinity"],
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
