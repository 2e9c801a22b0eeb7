"""The small kinds: configuration, nodes, RBAC, budgets, priorities, leases, ingresses."""

import base64
import binascii
from ipaddress import ip_network

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import immutable, not_allowed, required, unsupported, wrong
from towpath.lab.apiserver.validation.selectors import selector_causes

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
        if taint.get("effect") not in effects:
            causes.append(unsupported(f"spec.taints[{i}].effect", taint.get("effect") or "", effects))
    return causes


def role_binding_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """RoleBinding and ClusterRoleBinding."""
    role = obj.get("roleRef") or {}
    causes = [required(f"roleRef.{k}") for k in ("kind", "name") if not role.get(k)]
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
    causes = immutable("value", value, old.get("value")) if old else []
    if old is None and value > 1_000_000_000 and not name.startswith("system-"):
        causes.append(not_allowed("value", "maximum allowed value of a user defined priority is 1000000000"))
    return causes


def ingress_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Ingress."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and not spec.get("defaultBackend"):
        causes.append(wrong("spec", spec, "either `defaultBackend` or `rules` must be specified"))
    types = ["Exact", "ImplementationSpecific", "Prefix"]
    for i, rule in enumerate(spec.get("rules") or ()):
        for j, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            at = f"spec.rules[{i}].http.paths[{j}]"
            if not path.get("pathType"):
                causes.append(required(f"{at}.pathType", "pathType must be specified"))
            elif path["pathType"] not in types:
                causes.append(unsupported(f"{at}.pathType", path["pathType"], types))
            if not path.get("backend"):
                causes.append(required(f"{at}.backend"))
    return causes


def event_causes(obj: Obj, old: Obj | None) -> list[Cause]:
    """Event, in its core/v1 form."""
    about = (obj.get("involvedObject") or {}).get("namespace") or "default"
    if about != obj["metadata"].get("namespace"):
        return [wrong("involvedObject.namespace", about, "does not match event.namespace")]
    return []
