"""What the lab applies to its cluster: the agent as the DaemonSet an installation would have."""

from typing import Any

from towpath import __version__
from towpath.lab.node import AGENT_CONFIG, HEALTH_PORT

NAMESPACE, DAEMONSET = "kube-system", "towpath"
HOST_PATHS = {"config": "/etc/towpath", "run": "/run/towpath", "state": "/var/lib/towpath"}
IMAGE = f"docker.io/towpath/towpath-agent:v{__version__}"


def service_account() -> dict[str, Any]:
    """The agent's identity."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": DAEMONSET, "namespace": NAMESPACE},
    }


def daemonset() -> dict[str, Any]:
    """The agent on every node: host network, one capability, tolerating everything."""
    labels = {"app.kubernetes.io/name": "towpath", "k8s-app": "towpath"}
    container = {
        "name": "agent",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "towpath.agent", "--config", str(AGENT_CONFIG)],
        "env": [{"name": "TOWPATH_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": HEALTH_PORT, "host": "127.0.0.1"},
            "periodSeconds": 5,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": HEALTH_PORT, "host": "127.0.0.1"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path, "readOnly": name == "config"}
            for name, path in HOST_PATHS.items()
        ],
    }
    spec = {
        "hostNetwork": True,
        "serviceAccountName": DAEMONSET,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 5,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
            for name, path in HOST_PATHS.items()
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": DAEMONSET, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "towpath"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
