"""Defaults of pods and pod templates (k8s.io/kubernetes/pkg/apis/core/v1/defaults.go)."""

from typing import Any

from towpath.lab.apiserver.errors import Obj

MODE = 0o644
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def each(obj: Obj, key: str) -> list[Any]:
    """The list at ``key``; empty where absent."""
    found = obj.get(key)
    return found if isinstance(found, list) else []


def default_pod_spec(spec: Obj) -> None:
    """Fill in a PodSpec in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for key in _CONTAINERS:
        for container in each(spec, key):
            _container(container, bool(spec.get("hostNetwork")))
    for volume in each(spec, "volumes"):
        _volume(volume)


def _container(c: Obj, host_network: bool) -> None:
    c.setdefault("resources", {})
    c.setdefault("terminationMessagePath", "/dev/termination-log")
    c.setdefault("terminationMessagePolicy", "File")
    if not c.get("imagePullPolicy"):
        c["imagePullPolicy"] = "Always" if _tag(c.get("image") or "") == "latest" else "IfNotPresent"
    for port in each(c, "ports"):
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort"):
            port["hostPort"] = port.get("containerPort", 0)
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in c:
            _probe(c[key])
    for handler in (c.get("lifecycle") or {}).values():
        if isinstance(handler, dict):
            _http(handler)
    for env in each(c, "env"):
        if ref := (env.get("valueFrom") or {}).get("fieldRef"):
            ref.setdefault("apiVersion", "v1")


def _tag(image: str) -> str:
    """The image's tag; "latest" without one, "" with a digest."""
    if "@" in image:
        return ""
    return image.rpartition("/")[2].partition(":")[2] or "latest"


def _probe(probe: Obj) -> None:
    probe.setdefault("timeoutSeconds", 1)
    probe.setdefault("periodSeconds", 10)
    probe.setdefault("successThreshold", 1)
    probe.setdefault("failureThreshold", 3)
    _http(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http(handler: Obj) -> None:
    if http := handler.get("httpGet"):
        http.setdefault("path", "/")
        http.setdefault("scheme", "HTTP")


def _volume(volume: Obj) -> None:
    sources = [k for k in volume if k != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for key in ("configMap", "secret", "downwardAPI", "projected"):
        if key in volume:
            volume[key].setdefault("defaultMode", MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for source in (volume, *each(volume.get("projected") or {}, "sources")):
        for item in each(source.get("downwardAPI") or {}, "items"):
            if ref := item.get("fieldRef"):
                ref.setdefault("apiVersion", "v1")
        if token := source.get("serviceAccountToken"):
            token.setdefault("expirationSeconds", 3600)


def default_pod(pod: Obj) -> None:
    """A Pod; its status begins as Pending."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for resources in [c["resources"] for key in _CONTAINERS[:2] for c in each(spec, key)]:
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(pod["spec"]))
    _ips(status, "podIP", "podIPs")
    _ips(status, "hostIP", "hostIPs")


def _ips(status: Obj, one: str, many: str) -> None:
    if status.get(one) and not status.get(many):
        status[many] = [{"ip": status[one]}]
    elif status.get(many) and not status.get(one):
        status[one] = status[many][0].get("ip")


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort."""
    wants = [c.get("resources") or {} for key in _CONTAINERS[:2] for c in each(spec, key)]
    if not any(w.get("requests") or w.get("limits") for w in wants):
        return "BestEffort"
    exact = all(
        (w.get("limits") or {}).keys() >= {"cpu", "memory"} and w.get("requests", w["limits"]) == w["limits"]
        for w in wants
    )
    return "Guaranteed" if exact else "Burstable"
