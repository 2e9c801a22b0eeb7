"""The DaemonSet ``towpath-ns``, for those who want networks of pods changed while they run."""

from typing import Any

from towpath import __version__
from towpath.install.daemonset import HOST, TOLERATIONS, host_path, mount, security
from towpath.install.migration import only_labelled
from towpath.install.values import Values

NAME = "towpath-ns"
# SYS_ADMIN to enter a pod's network namespace, SYS_CHROOT to run the node's plugins as the runtime does,
# DAC_OVERRIDE because the agent's socket is the agent's alone; the last two are for the plugins.
CAPABILITIES = ("SYS_ADMIN", "SYS_CHROOT", "DAC_OVERRIDE", "NET_ADMIN", "NET_RAW")


def helper(values: Values) -> dict[str, Any]:
    """Root on every Linux node, without a token, a port or a network of its own."""
    labels = {"app.kubernetes.io/name": NAME, "k8s-app": NAME}
    versioned = {**labels, "app.kubernetes.io/version": __version__}
    pod = {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        **({"affinity": only_labelled()} if values.migrating else {}),
        "hostNetwork": True,  # plugins are run where the runtime runs them
        "hostPID": True,  # Go's look themselves up in the node's /proc, by the node's numbers
        "dnsPolicy": "Default",
        "automountServiceAccountToken": False,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 5,
        "tolerations": TOLERATIONS,
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"seLinuxOptions": {"type": values.selinux_type}} if values.selinux_type else {}),
        },
        "containers": [_container(values)],
        "volumes": [host_path("root", "/", "Directory")],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": values.namespace, "labels": versioned},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": NAME}},
            "template": {"metadata": {"labels": versioned}, "spec": pod},
        },
    }


def _container(values: Values) -> dict[str, Any]:
    return {
        "name": "ns",
        "image": values.image,
        "imagePullPolicy": values.image_pull_policy,
        "command": ["/usr/bin/python3", "-m", "towpath.agent.ns"],
        "args": [f"--root={HOST}", f"--plugins={values.cni_bin}"],
        "securityContext": {"runAsUser": 0, **security(*CAPABILITIES, escalation=False)},
        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}},
        # Namespaces of pods that come later are mounts, too.
        "volumeMounts": [{**mount("root", HOST), "mountPropagation": "HostToContainer"}],
    }
