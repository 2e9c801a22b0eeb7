"""The small kinds: configuration, nodes, RBAC, budgets, priorities, leases, ingresses."""

import base64
import binascii
from ipaddress import ip_network

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import immutable, not_allowed, required, unsupported, wrong
from towpath.lab.apiserver.validation.selectors import selector_causes

_VOLUME_FIELDS = {
    "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
    "storageClassName", "volumeAttributesClassName", "volumeMode",
}  # fmt: skip
_KEPT = "field is immutable when `immutable` is set"


def _keys(obj: Obj, *fields: str) -> list[Cause]:
    return [wrong(f"{f}[{k}]", k, w) for f in fields for k in obj.get(f) or () for w in names.config_key(k)]


def _frozen(obj: Obj, old: Obj | None, *fields: str) -> list[Cause]:
    if not old or not old.get("immutable"):
        return []
    causes = [] if obj.get("immutable") else [not_allowed("immutable", _KEPT)]
    return causes + [not_allowed(f, _KEPT) for f in fields if obj.get(f) != old.get(f)]


def config_map_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """ConfigMap."""
    return _keys(obj, "data", "binaryData") + _frozen(obj, old, "data", "binaryData")


def secret_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Secret."""
    causes = _keys(obj, "data") + _frozen(obj, old, "data")
    for key, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            causes.append(wrong(f"data[{key}]", value, "illegal base64 data"))
    return causes + (immutable("type", obj.get("type"), old.get("type")) if old else [])


def node_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Node: its pod networks are set once."""
    spec, causes = obj.get("spec") or {}, []
    for i, text in enumerate(spec.get("podCIDRs") or ()):
        try:
            ip_network(text)
        except ValueError:
            causes.append(wrong(f"spec.podCIDRs[{i}]", text, "must be a valid CIDR value"))
    was = ((old or {}).get("spec") or {}).get("podCIDRs")
    if was and spec.get("podCIDRs") != was:
        causes.append(
            not_allowed("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
        )
    effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"]
    for i, taint in enumerate(spec.get("taints") or ()):
        causes += [
            wrong(f"spec.taints[{i}].key", taint.get("key") or "", w)
            for w in names.qualified_name(taint.get("key") or "")
        ]
        if not taint.get("effect"):
            causes.append(required(f"spec.taints[{i}].effect"))
        elif taint["effect"] not in effects:
            causes.append(unsupported(f"spec.taints[{i}].effect", taint["effect"], effects))
    return causes


def volume_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """PersistentVolume."""
    spec = obj.get("spec") or {}
    causes = [required(f"spec.{k}") for k in ("accessModes", "capacity") if not spec.get(k)]
    if not set(spec) - _VOLUME_FIELDS:
        causes.append(required("spec", "must specify a volume type"))
    return causes


def claim_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """PersistentVolumeClaim."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("accessModes"):
        causes.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        causes.append(required("spec.resources[storage]"))
    return causes


def role_binding_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """RoleBinding and ClusterRoleBinding."""
    role = obj.get("roleRef") or {}
    kinds = ["ClusterRole", "Role"] if obj.get("kind") == "RoleBinding" else ["ClusterRole"]
    causes: list[Cause] = []
    if role.get("kind") not in kinds:
        causes.append(unsupported("roleRef.kind", role.get("kind") or "", kinds))
    if not role.get("name"):
        causes.append(required("roleRef.name"))
    if old is not None and role != old.get("roleRef"):
        causes.append(wrong("roleRef", role, "cannot change roleRef"))
    for i, subject in enumerate(obj.get("subjects") or ()):
        if not subject.get("name"):
            causes.append(required(f"subjects[{i}].name"))
        if subject.get("kind") not in ("User", "Group", "ServiceAccount"):
            allowed = ["Group", "ServiceAccount", "User"]
            causes.append(unsupported(f"subjects[{i}].kind", subject.get("kind") or "", allowed))
    return causes


def budget_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    causes = selector_causes(spec.get("selector"), "spec.selector")
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    return causes


def priority_class_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """PriorityClass."""
    name, value = obj["metadata"].get("name") or "", obj.get("value", 0)
    causes: list[Cause] = []
    if old is not None and value != old.get("value"):
        causes.append(not_allowed("value", "may not be changed in an update."))
    if old is None and value > 1_000_000_000 and not name.startswith("system-"):
        causes.append(not_allowed("value", "maximum allowed value of a user defined priority is 1000000000"))
    return causes


def ingress_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Ingress."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(wrong("spec", spec, "either `defaultBackend` or `rules` must be specified"))
    for i, rule in enumerate(spec.get("rules") or ()):
        if rule.get("http") is not None:
            causes += _paths(rule["http"].get("paths") or [], f"spec.rules[{i}].http.paths")
    return causes


_PATH_TYPES = ["Exact", "ImplementationSpecific", "Prefix"]


def _paths(paths: list[Obj], field: str) -> list[Cause]:
    causes: list[Cause] = [] if paths else [required(field)]
    for i, path in enumerate(paths):
        at, kind = f"{field}[{i}]", path.get("pathType")
        if not kind:
            causes.append(required(f"{at}.pathType", "pathType must be specified"))
        elif kind not in _PATH_TYPES:
            causes.append(unsupported(f"{at}.pathType", kind, _PATH_TYPES))
        if kind in ("Exact", "Prefix") and not (path.get("path") or "").startswith("/"):
            causes.append(wrong(f"{at}.path", path.get("path") or "", "must be an absolute path"))
        backend = path.get("backend") or {}
        if "service" not in backend and "resource" not in backend:
            causes.append(wrong(f"{at}.backend", "", "resource or service backend is required"))
        elif "service" in backend:
            causes += _backend(backend["service"], f"{at}.backend")
    return causes


def _backend(service: Obj, at: str) -> list[Cause]:
    name, port = service.get("name") or "", service.get("port") or {}
    if not name:
        return [required(f"{at}.service.name")]
    causes = [wrong(f"{at}.service.name", name, why) for why in names.label_1035(name)]
    if not port.get("name") and not port.get("number"):
        causes.append(required(at, "port name or number is required"))
    return causes


def event_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Event, in its core/v1 form."""
    about = (obj.get("involvedObject") or {}).get("namespace") or "default"
    if about != obj["metadata"].get("namespace"):
        return [wrong("involvedObject.namespace", about, "does not match event.namespace")]
    return []
