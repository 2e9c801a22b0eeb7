"""The Job that watches an upgraded network from inside, with rights to read and nothing else. Pure."""

from typing import Any

import yaml

NAME, NAMESPACE = "towpath-watch", "kube-system"
_READ = ["get", "list"]
_RULES = [
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": _READ},
    {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": _READ},
    {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": _READ},
    {
        "apiGroups": [
            "crd.projectcalico.org",
            "policy.networking.k8s.io",
            "k8s.cni.cncf.io",
            "whereabouts.cni.cncf.io",
        ],
        "resources": ["*"],
        "verbs": _READ,
    },
]


def manifests(image: str, length: float, every: float) -> str:
    """As YAML. Host-networked: it must not depend on the network that it watches."""
    meta = {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "towpath"}}
    arguments = [
        "upgrade",
        "watch",
        "--for",
        f"{length:.0f}s",
        "--every",
        f"{every:.0f}s",
        "--probe-seconds",
        "0",
    ]
    container = {
        "name": "watch",
        "image": image,
        "command": ["python3", "-m", "towpath", *arguments],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {
        "serviceAccountName": NAME,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": _RULES},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            "subjects": [subject],
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta,
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": meta["labels"]}, "spec": pod}},
        },
    ]
    return yaml.safe_dump_all(made, sort_keys=False)
