"""Defaults of Services, Namespaces, Secrets, policies and the other small kinds."""

import base64

from towpath.lab.apiserver.defaults.pod import each
from towpath.lab.apiserver.errors import Obj

RBAC = "rbac.authorization.k8s.io"


def default_service(obj: Obj) -> None:
    """Service; addresses and ports are allocated in admission."""
    spec = obj.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    if spec.setdefault("sessionAffinity", "None") == "ClientIP":
        client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client.setdefault("timeoutSeconds", 10800)
    for port in each(spec, "ports"):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if kind != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def default_namespace(obj: Obj) -> None:
    """Namespace: the finalizer of its content, the label of its name."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta:
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")
    meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta.get("name", "")


def default_secret(obj: Obj) -> None:
    """Secret: ``stringData`` becomes part of ``data``."""
    obj.setdefault("type", "Opaque")
    text = obj.pop("stringData", None) or {}
    if text:
        coded = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
        obj["data"] = {**(obj.get("data") or {}), **coded}


def default_node(obj: Obj) -> None:
    """Node: the two spellings of its pod networks agree."""
    spec = obj.setdefault("spec", {})
    if spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    elif spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    status = obj.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def default_endpoints(obj: Obj) -> None:
    """Endpoints."""
    for subset in each(obj, "subsets"):
        for port in each(subset, "ports"):
            port.setdefault("protocol", "TCP")


def default_endpoint_slice(obj: Obj) -> None:
    """EndpointSlice."""
    obj.setdefault("endpoints", [])
    for port in each(obj, "ports"):
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def default_network_policy(obj: Obj) -> None:
    """NetworkPolicy: the types that its rules imply."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in (*each(spec, "ingress"), *each(spec, "egress")):
        for port in each(rule, "ports"):
            port.setdefault("protocol", "TCP")


def default_volume(obj: Obj) -> None:
    """PersistentVolume."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def default_claim(obj: Obj) -> None:
    """PersistentVolumeClaim."""
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def default_role_binding(obj: Obj) -> None:
    """RoleBinding and ClusterRoleBinding: API groups of what they name."""
    if role := obj.get("roleRef"):
        role["apiGroup"] = role.get("apiGroup") or RBAC
    for subject in each(obj, "subjects"):
        if subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = subject.get("apiGroup") or RBAC


def default_priority_class(obj: Obj) -> None:
    """PriorityClass."""
    obj.setdefault("value", 0)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def default_ingress(obj: Obj) -> None:
    """Ingress."""
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def default_budget(obj: Obj) -> None:
    """PodDisruptionBudget: nothing allowed until someone counts."""
    status = obj.setdefault("status", {})
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(key, 0)


def default_event(obj: Obj) -> None:
    """Event, in its core/v1 form."""
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")
