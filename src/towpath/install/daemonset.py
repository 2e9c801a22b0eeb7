"""The DaemonSet: an init container that installs on the node, and the agent."""

from typing import Any

from towpath import __version__
from towpath.install.configuration import AGENT_CONFIG, CONFIG_FOLDER, TLS_FOLDER
from towpath.install.migration import only_labelled
from towpath.install.values import Values
from towpath.multinet.devices import FOLDER

NAME = "towpath"
HOST = "/host"
LAUNCHER = "/usr/bin/towpath-launch"

TOLERATIONS = [
    {"operator": "Exists", "effect": "NoSchedule"},
    {"operator": "Exists", "effect": "NoExecute"},
    {"operator": "Exists", "key": "CriticalAddonsOnly"},
]
_TLS = "metrics-tls"
_VERSION_LABEL = "app.kubernetes.io/version"
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where clients look for it


def daemonset(values: Values, checksum: str) -> dict[str, Any]:
    """On every Linux node, before anything else. ``checksum`` of the configuration: another rolls it out."""
    labels = {"app.kubernetes.io/name": NAME, "k8s-app": NAME}
    versioned = {**labels, _VERSION_LABEL: __version__}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": values.namespace, "labels": versioned},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": NAME}},
            "updateStrategy": _strategy(values),
            "template": {
                "metadata": {"labels": versioned, "annotations": {"towpath.dev/config": checksum}},
                "spec": _pod(values),
            },
        },
    }


def _strategy(values: Values) -> dict[str, Any]:
    if values.update_strategy == "OnDelete":
        return {"type": "OnDelete"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}


def _pod(values: Values) -> dict[str, Any]:
    return {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        **({"affinity": only_labelled()} if values.migrating else {}),
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "priorityClassName": "system-node-critical",
        # The successor's pod is made at once. With any grace it is made when the kubelet has reported the end
        # of this one, which takes kubelets before 1.22 up to ten seconds, and pods that start would wait. The
        # agent may be killed at any moment anyway.
        "terminationGracePeriodSeconds": 0,
        "tolerations": TOLERATIONS,
        # The group makes the projected token and the state folder the agent's, whose uid is not the owner.
        "securityContext": {
            "fsGroup": values.gid,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"seLinuxOptions": {"type": values.selinux_type}} if values.selinux_type else {}),
        },
        "initContainers": [_installer(values)],
        "containers": [_agent(values)],
        "volumes": [
            {"name": "config", "configMap": {"name": f"{NAME}-config"}},
            _token(),
            host_path("cni-bin", values.cni_bin),
            host_path("cni-conf", values.cni_conf),
            host_path("state", values.state),
            host_path("run", values.run),
            host_path("sysctl", "/proc/sys/net", "Directory"),
            *([_tls_secret(values)] if values.metrics_tls_secret else []),
            host_path("devinfo", FOLDER),
        ],
    }


def _installer(values: Values) -> dict[str, Any]:
    return {
        "name": "install-cni",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "command": ["/usr/bin/python3", "-m", "towpath.install.node"],
        "args": [
            f"--cni-bin={HOST}{values.cni_bin}",
            f"--conflist={HOST}{values.cni_conf}/{values.conflist}",
            f"--socket-folder={values.run}",
            f"--state={values.state}",
            f"--uid={values.uid}",
            f"--gid={values.gid}",
        ],
        # As the agent's group, so that root without any capability can give it the folders.
        "securityContext": {"runAsUser": 0, "runAsGroup": values.gid, **security(escalation=False)},
        "volumeMounts": [
            mount("cni-bin", f"{HOST}{values.cni_bin}"),
            mount("cni-conf", f"{HOST}{values.cni_conf}"),
            mount("state", values.state),
            mount("run", values.run),
        ],
    }


def _agent(values: Values) -> dict[str, Any]:
    return {
        "name": "agent",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "command": [LAUNCHER, "/usr/bin/python3", "-m", "towpath.agent"],
        "args": [f"--config={CONFIG_FOLDER}/{AGENT_CONFIG}"],
        "env": [{"name": "TOWPATH_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        # Kubernetes gives a non-root user's process no effective capability, only the bounding set. So the
        # launcher has NET_ADMIN as a file capability, which counts only where escalation is allowed; it makes
        # sure that nothing else can be gained (shim/towpath-launch.c).
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": values.uid,
            "runAsGroup": values.gid,
            **security("NET_ADMIN", escalation=True),
            **_seccomp(values),
        },
        "livenessProbe": _probe(
            values, "/healthz", initialDelaySeconds=10, periodSeconds=10, failureThreshold=6
        ),
        "readinessProbe": _probe(values, "/readyz", periodSeconds=2),
        "resources": {"requests": {"cpu": values.cpu_request, "memory": values.memory_request}},
        "volumeMounts": [
            {**mount("config", CONFIG_FOLDER), "readOnly": True},
            {**mount("token", _TOKEN), "readOnly": True},
            mount("state", values.state),
            mount("run", values.run),
            {**mount("cni-conf", values.cni_conf), "readOnly": True},  # networks that are configured there
            {**mount("devinfo", "/run/k8s.cni.cncf.io/devinfo"), "readOnly": True},
            # /proc/sys is read-only in a container; this is the host network's part of it, writable
            mount("sysctl", f"{HOST}/proc/sys/net"),
            *([{**mount(_TLS, TLS_FOLDER), "readOnly": True}] if values.metrics_tls_secret else []),
        ],
    }


def security(*capabilities: str, escalation: bool) -> dict[str, Any]:
    """A container with these capabilities and no other."""
    added = {"add": list(capabilities)} if capabilities else {}
    return {
        "allowPrivilegeEscalation": escalation,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], **added},
    }


def _seccomp(values: Values) -> dict[str, Any]:
    """Besides the launcher's filter: a profile on the node, where somebody has put it there."""
    if not values.seccomp_profile:
        return {}
    return {"seccompProfile": {"type": "Localhost", "localhostProfile": values.seccomp_profile}}


def _token() -> dict[str, Any]:
    """What Kubernetes would mount into every container, as a volume for the one that needs it."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "token", "projected": {"sources": sources}}


def _probe(values: Values, path: str, **timing: int) -> dict[str, Any]:
    asked: dict[str, Any] = {"host": "127.0.0.1", "path": path, "port": values.health_port}
    if values.metrics_tls_secret:
        asked["scheme"] = "HTTPS"  # kubelets do not check the certificate
    return {"httpGet": asked, **timing}


def _tls_secret(values: Values) -> dict[str, Any]:
    return {"name": _TLS, "secret": {"secretName": values.metrics_tls_secret, "defaultMode": 0o440}}


def mount(name: str, path: str) -> dict[str, Any]:
    """Of a volume."""
    return {"name": name, "mountPath": path}


def host_path(name: str, path: str, kind: str = "DirectoryOrCreate") -> dict[str, Any]:
    """A volume: a folder of the node."""
    return {"name": name, "hostPath": {"path": path, "type": kind}}
