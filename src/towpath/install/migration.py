"""What a migration from Canal needs in the cluster: the Node's label, and a Job that runs on one node.

The label says whose the node is. Canal's DaemonSet must keep off nodes labelled "towpath"
(``docs/guides/migrate-from-canal.md``); Towpath's runs on nodes with any of the three values.
"""

from typing import Any, Literal

from towpath.install.configuration import AGENT_CONFIG, CONFIG_FOLDER
from towpath.install.values import Values

LABEL = "towpath.dev/network"
TAKEOVER, TAKEN, HANDBACK = "takeover", "towpath", "handback"
NAME = "towpath-takeover"

# readlink(/proc/PID/ns/net) and /proc/PID/environ want SYS_PTRACE; iptables-legacy opens a raw socket.
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "NET_ADMIN", "NET_RAW", "SYS_PTRACE")
_RULES = (
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
)


def only_labelled() -> dict[str, Any]:
    """The affinity of Towpath's DaemonSet while a cluster is half Canal's."""
    return _affinity("In", [TAKEOVER, TAKEN, HANDBACK])


def without_taken() -> dict[str, Any]:
    """The affinity that Canal's DaemonSet needs meanwhile."""
    return _affinity("NotIn", [TAKEN])


def _affinity(operator: str, values: list[str]) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": LABEL, "operator": operator, "values": values}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def identity(values: Values) -> tuple[dict[str, Any], ...]:
    """Who moves a node, and what of the API it may."""
    meta = {"name": NAME, "labels": {"app.kubernetes.io/name": "towpath"}}
    spaced = {**meta, "namespace": values.namespace}
    rbac = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": spaced},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": meta, "rules": list(_RULES)},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": values.namespace}],
        },
    )


def job(values: Values, direction: Literal["takeover", "handback"], node: str) -> tuple[dict[str, Any], ...]:
    """A Job that runs ``towpath node DIRECTION`` on ``node``, and its identity. Killed, it is started
    again.
    """
    labels = {"app.kubernetes.io/name": "towpath"}
    spec = {**pod_spec(values, direction), "nodeName": node, "restartPolicy": "OnFailure"}
    made = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"towpath-{direction}-{node}",
            "labels": labels,
            "namespace": values.namespace,
        },
        "spec": {
            "backoffLimit": 100,
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    return (*identity(values), made)


def pod_spec(values: Values, direction: str) -> dict[str, Any]:
    """Of the pod that runs it, on whatever node."""
    folders = {
        "cni-bin": (values.cni_bin, "Directory"),
        "cni-conf": (values.cni_conf, "Directory"),
        "cni-state": ("/var/lib/cni", "DirectoryOrCreate"),
        "state": (values.state, "DirectoryOrCreate"),
        "xtables-lock": ("/run/xtables.lock", "FileOrCreate"),
    }
    mounts: list[dict[str, Any]] = [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}]
    mounts += [{"name": name, "mountPath": path} for name, (path, _) in folders.items()]
    mounts.append({"name": "tmp", "mountPath": "/tmp"})  # noqa: S108 (the pod's own; the rest is read-only)
    return {
        "hostNetwork": True,
        "hostPID": True,
        "dnsPolicy": "Default",
        "serviceAccountName": NAME,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"seLinuxOptions": {"type": values.selinux_type}} if values.selinux_type else {}),
        },
        "containers": [
            {
                "name": direction,
                "image": values.takeover_image,
                "imagePullPolicy": values.image_pull_policy,
                "command": ["/usr/bin/python3", "-m", "towpath", "node", direction],
                "args": [
                    f"--config={CONFIG_FOLDER}/{AGENT_CONFIG}",
                    f"--cni-bin={values.cni_bin}",
                    f"--cni-conf={values.cni_conf}",
                ],
                "env": [
                    {"name": "TOWPATH_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
                ],
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": "towpath-config"}},
            {"name": "tmp", "emptyDir": {}},
            *(
                {"name": name, "hostPath": {"path": path, "type": kind}}
                for name, (path, kind) in folders.items()
            ),
        ],
    }
