"""What a probe run puts into a cluster: one namespace with everything in it. Pure.

Deleting the namespace deletes all of it. Its label names the run and its annotation says until when it may be
there, so that what a killed run left can be told from what is in use (``towpath probe clean``).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from towpath.inventory.components import PROBES
from towpath.multinet.annotation import NETWORKS
from towpath.probe.paths import (
    DENIED_PORT,
    DNS_PORT,
    ECHO_PORT,
    HOST_PORT_OFFSET,
    HOST_TARGET_OFFSET,
)
from towpath.probe.plan import Plan

LABEL, EXPIRES = PROBES, "probe.towpath.dev/expires"
TARGETS, HOST_TARGETS, SERVICE = "target", "host-target", "target"

LISTENS = (
    (ECHO_PORT, "TCP"),
    (ECHO_PORT, "UDP"),
    (DNS_PORT, "DNS"),
    (DENIED_PORT, "TCP"),
    (DENIED_PORT, "UDP"),
)
_TRANSPORT = {"DNS": "UDP"}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``expires`` RFC 3339; ``python`` the interpreter inside ``image``; ``network``: a
    NetworkAttachmentDefinition, NAMESPACE/NAME, that the pods get beside the pod network."""

    name: str
    expires: str
    image: str
    python: tuple[str, ...] = ("python3",)
    network: str = ""

    @property
    def namespace(self) -> str:
        """Where all of it is."""
        return f"towpath-probe-{self.name}"

    @property
    def networks(self) -> dict[str, str] | None:
        """The annotation of pods on the pod network."""
        return {NETWORKS: self.network} if self.network else None

    def labels(self, app: str) -> dict[str, str]:
        """Of every object."""
        return {
            LABEL: self.name,
            "app.kubernetes.io/name": app,
            "app.kubernetes.io/managed-by": "towpath-probe",
        }


def namespace(run: Run) -> dict[str, Any]:
    """Privileged by Pod Security's measure: host ports and host network are what is probed."""
    labels = {**run.labels("probe"), "pod-security.kubernetes.io/enforce": "privileged"}
    return _object("v1", "Namespace", run.namespace, labels, annotations={EXPIRES: run.expires})


def targets(run: Run) -> dict[str, Any]:
    """On every node: answers on the pod network and on host ports."""
    ports = [
        {"containerPort": port, "hostPort": port + HOST_PORT_OFFSET, "protocol": _TRANSPORT.get(kind, kind)}
        for port, kind in LISTENS
    ]
    listens = [f"{port}/{kind}" for port, kind in LISTENS]
    return _daemonset(run, TARGETS, listens, {"ports": ports}, {})


def host_targets(run: Run) -> dict[str, Any]:
    """On every node's own network, for where there is nothing outside to ask."""
    listens = [f"{port + HOST_TARGET_OFFSET}/{kind}" for port, kind in LISTENS if port != DENIED_PORT]
    return _daemonset(run, HOST_TARGETS, listens, {}, {"hostNetwork": True})


def service(run: Run) -> dict[str, Any]:
    """In front of the targets, with a node port each; both families where the cluster has them."""
    ports = [
        {
            "name": f"{kind.lower()}-{port}",
            "port": port,
            "targetPort": port,
            "protocol": _TRANSPORT.get(kind, kind),
        }
        for port, kind in LISTENS
    ]
    spec = {
        "type": "NodePort",
        "ipFamilyPolicy": "PreferDualStack",
        "selector": _selector(run, TARGETS),
        "ports": ports,
    }
    return {**_object("v1", "Service", SERVICE, run.labels(TARGETS), run.namespace), "spec": spec}


def policies(run: Run, outside: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Close the denied port: of targets for everybody; of outside addresses for the probers."""
    # Not for the denied port, hence denied: what a policy selects and does not allow.
    echo = [{"port": ECHO_PORT, "protocol": "TCP"}, {"port": ECHO_PORT, "protocol": "UDP"}]
    allowed = [*echo, {"port": DNS_PORT, "protocol": "UDP"}]
    ingress = {
        "podSelector": {"matchLabels": _selector(run, TARGETS)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": allowed}],
    }
    found = [_policy(run, "target", ingress)]
    if outside:
        blocks = [{"ipBlock": {"cidr": f"{a}/{128 if ':' in a else 32}"}} for a in outside]
        everything = [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"{a}/32" for a in outside if ":" not in a]}},
            {"ipBlock": {"cidr": "::/0", "except": [f"{a}/128" for a in outside if ":" in a]}},
        ]
        egress = {
            "podSelector": {"matchLabels": _selector(run, "prober")},
            "policyTypes": ["Egress"],
            "egress": [{"to": blocks, "ports": allowed}, {"to": everything}],
        }
        found.append(_policy(run, "prober", egress))
    return tuple(found)


def prober(run: Run, node: str, plan: Plan, *, host_network: bool) -> dict[str, Any]:
    """A pod that carries out a plan on ``node`` and ends by itself."""
    text = msgspec.json.encode(plan).decode()
    container = {
        "name": "prober",
        "image": run.image,
        "command": [*run.python, "-m", "towpath.probe", "run", text],
        "securityContext": _SECURITY,
    }
    spec = {
        **_pod_spec([container]),
        "nodeName": node,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": int(plan.seconds) + 60,
        "hostNetwork": host_network,
    }
    name = prober_name(node, host_network=host_network)
    networks = None if host_network else run.networks
    return {**_object("v1", "Pod", name, run.labels("prober"), run.namespace, networks), "spec": spec}


def prober_name(node: str, *, host_network: bool) -> str:
    """Of the pod."""
    return f"{'node' if host_network else 'pod'}-{node}"


_SECURITY = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _daemonset(
    run: Run, name: str, listens: list[str], more: dict[str, Any], spec: dict[str, Any]
) -> dict[str, Any]:
    container = {
        "name": "target",
        "image": run.image,
        "command": [*run.python, "-m", "towpath.probe", "serve", name, *listens],
        "readinessProbe": {"tcpSocket": {"port": int(listens[0].split("/")[0])}, "periodSeconds": 1},
        "securityContext": _SECURITY,
        **more,
    }
    labels = run.labels(name)
    metadata: dict[str, Any] = {"labels": labels}
    if run.networks and not spec.get("hostNetwork"):
        metadata["annotations"] = run.networks
    return {
        **_object("apps/v1", "DaemonSet", name, labels, run.namespace),
        "spec": {
            "selector": {"matchLabels": _selector(run, name)},
            "template": {"metadata": metadata, "spec": {**_pod_spec([container]), **spec}},
        },
    }


def _pod_spec(containers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "containers": containers,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        # A run must not end because a node is NotReady while its network is replaced.
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
    }


def _selector(run: Run, app: str) -> dict[str, str]:
    return {LABEL: run.name, "app.kubernetes.io/name": app}


def _policy(run: Run, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    found = _object("networking.k8s.io/v1", "NetworkPolicy", name, run.labels(name), run.namespace)
    return {**found, "spec": spec}


def _object(
    version: str,
    kind: str,
    name: str,
    labels: dict[str, str],
    namespace: str = "",
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
