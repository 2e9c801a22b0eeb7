"""The Job that watches an upgraded network from inside: what it is told, and the rights that takes. Pure."""

from typing import Any

import msgspec
import yaml

NAME, NAMESPACE = "towpath-watch", "kube-system"
LARGEST = 1_000_000  # bytes of a baseline: a ConfigMap has a mebibyte
_RBAC = "rbac.authorization.k8s.io"
_FOLDER, _FILE = "/baseline", "baseline.json"
_READ = ["get", "list"]
_LOOKS = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": _READ},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["list"]},
    {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["list"]},
    {
        "apiGroups": [
            "crd.projectcalico.org",
            "policy.networking.k8s.io",
            "k8s.cni.cncf.io",
            "whereabouts.cni.cncf.io",
        ],
        "resources": ["*"],
        "verbs": ["list"],
    },
]
# A run of probes has a namespace of its own, whose name nobody knows before.
_PROBES = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "delete", *_READ]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create", *_READ]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]},
    {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["create", "get"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create"]},
]
_NODES = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
_READERS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]}]


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told. Times in seconds; ``baseline``: the text of one that was kept."""

    image: str
    length: float
    every: float
    probe_seconds: float
    read_nodes: bool
    baseline: str = ""

    @property
    def arguments(self) -> list[str]:
        """Of the command in the Job."""
        words = ["--for", f"{self.length:.0f}s", "--every", f"{self.every:.0f}s", "--image", self.image]
        words += ["--probe-seconds", f"{self.probe_seconds:g}"]
        words.append("--read-nodes" if self.read_nodes else "--no-read-nodes")
        return [*words, "--baseline", f"{_FOLDER}/{_FILE}"] if self.baseline else words


def manifests(watch: Watch) -> str:
    """As YAML. Host-networked: it must not depend on the network that it watches.

    The rights are those to read, and of what is wanted beyond that no more than it takes.
    """
    meta = {"name": NAME, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "towpath"}}
    rules = [*_LOOKS, *(_PROBES if watch.probe_seconds else [])]
    if watch.probe_seconds or watch.read_nodes:
        rules.append(_NODES)
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
        _binding("ClusterRole", {"name": NAME}),
    ]
    if watch.read_nodes:
        made.append({"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": _READERS})
        made.append(_binding("Role", meta))
    if watch.baseline:
        data = {_FILE: watch.baseline}
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    pod = {"metadata": {"labels": meta["labels"]}, "spec": _pod(watch)}
    spec = {"backoffLimit": 0, "template": pod}
    made.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec})
    return yaml.safe_dump_all(made, sort_keys=False)


def _binding(role: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": role, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }


def _pod(watch: Watch) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "watch",
        "image": watch.image,
        "command": ["python3", "-m", "towpath", "upgrade", "watch", *watch.arguments],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod: dict[str, Any] = {
        "serviceAccountName": NAME,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    if watch.baseline:
        container["volumeMounts"] = [{"name": "baseline", "mountPath": _FOLDER, "readOnly": True}]
        pod["volumes"] = [{"name": "baseline", "configMap": {"name": NAME}}]
    return pod
