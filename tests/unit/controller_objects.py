"""Objects for the controllers' tests, as short as tests want them."""

from typing import Any

import msgspec

from towpath.lab.controllers.objects_apps import DaemonSet, Deployment, ReplicaSet
from towpath.lab.controllers.objects_core import Node, Pod, Service
from towpath.lab.controllers.objects_meta import format_time

NOW = 1_790_000_000.0
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}]},
}


def template(image: str = "web:1", **spec: Any) -> dict[str, Any]:
    """A pod template."""
    container = {"name": "web", "image": image, "ports": [{"containerPort": 80, "name": "http"}]}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], **spec}}


def owned_by(kind: str, name: str) -> list[dict[str, Any]]:
    """Owner references of something controlled by ``name``, whose uid is its name."""
    reference = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name}
    return [{**reference, "controller": True, "blockOwnerDeletion": True}]


def meta(name: str, **more: Any) -> dict[str, Any]:
    """Metadata; the uid is the name."""
    base = {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1", "generation": 1}
    return {**base, "creationTimestamp": format_time(NOW - 100), **more}


def pod(
    name: str,
    node: str = "",
    *,
    ready: bool = False,
    phase: str = "Running",
    labels: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    deleting: bool = False,
    ips: tuple[str, ...] = (),
    since: float = NOW - 50,
    created: float = NOW - 100,
    **spec: Any,
) -> Pod:
    """A pod of template ``TEMPLATE``."""
    body = {
        "metadata": meta(
            name,
            labels={"app": "web"} if labels is None else labels,
            creationTimestamp=format_time(created),
            **({"ownerReferences": owned_by(*owner)} if owner else {}),
            **({"deletionTimestamp": format_time(NOW)} if deleting else {}),
        ),
        "spec": {"containers": template()["spec"]["containers"], "nodeName": node, **spec},
        "status": {
            "phase": phase,
            "podIP": ips[0] if ips else "",
            "podIPs": [{"ip": i} for i in ips],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "lastTransitionTime": format_time(since),
                }
            ],
        },
    }
    return msgspec.convert(body, Pod)


def node(name: str, *, labels: dict[str, str] | None = None, ready: str = "True", **spec: Any) -> Node:
    """A node with the hostname label."""
    base = {"kubernetes.io/hostname": name}
    body = {
        "metadata": {**meta(name, labels={**base, **(labels or {})}), "namespace": ""},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }
    return msgspec.convert(body, Node)


def deployment(replicas: int, image: str = "web:1", **more: Any) -> Deployment:
    """Deployment ``web``. ``more``: spec fields, or ``metadata``/``status`` whole."""
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(image),
        "progressDeadlineSeconds": 600,
    }
    status, metadata = more.pop("status", {}), more.pop("metadata", {})
    body = {"metadata": meta("web", **metadata), "spec": {**spec, **more}, "status": status}
    return msgspec.convert(body, Deployment)


def replicaset(
    name: str, replicas: int, image: str = "web:1", available: int | None = None, **more: Any
) -> ReplicaSet:
    """A ReplicaSet of Deployment ``web``."""
    available = replicas if available is None else available
    labels = {"app": "web", "pod-template-hash": name}
    body_template = template(image)
    body_template["metadata"] = {"labels": labels}
    body = {
        "metadata": meta(name, labels=labels, ownerReferences=owned_by("Deployment", "web"), **more),
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": body_template},
        "status": {
            "replicas": replicas,
            "readyReplicas": available,
            "availableReplicas": available,
            "observedGeneration": 1,
        },
    }
    return msgspec.convert(body, ReplicaSet)


def daemonset(image: str = "web:1", **more: Any) -> DaemonSet:
    """DaemonSet ``agent``."""
    body = {
        "metadata": meta("agent"),
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(image), **more},
    }
    return msgspec.convert(body, DaemonSet)


def service(*families: str, ports: list[dict[str, Any]] | None = None, **more: Any) -> Service:
    """Service ``web`` that selects app=web."""
    body = {
        "metadata": meta("web"),
        "spec": {
            "selector": {"app": "web"},
            "clusterIP": "10.43.0.10",
            "ipFamilies": list(families or ("IPv4",)),
            "ports": ports or [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
            **more,
        },
    }
    return msgspec.convert(body, Service)
