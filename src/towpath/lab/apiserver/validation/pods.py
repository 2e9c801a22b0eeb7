"""Pods and pod templates (k8s.io/kubernetes/pkg/apis/core/validation), as far as people get them wrong."""

import copy

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.containers import container_causes, field_path_causes
from towpath.lab.apiserver.validation.field import (
    duplicate,
    not_allowed,
    required,
    unsupported,
    wrong,
)
from towpath.lab.apiserver.validation.metadata import label_causes

_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_MUTABLE = (
    "activeDeadlineSeconds",
    "tolerations",
    "terminationGracePeriodSeconds",
    "ephemeralContainers",
    "priority",
)


def _volumes(volumes: list[Obj], field: str) -> list[Cause]:
    causes: list[Cause] = []
    for i, volume in enumerate(volumes):
        name, at = volume.get("name"), f"{field}[{i}]"
        if not name:
            causes.append(required(f"{at}.name"))
            continue
        causes += [wrong(f"{at}.name", name, why) for why in names.label_1123(name)]
        if any(v.get("name") == name for v in volumes[:i]):
            causes.append(duplicate(f"{at}.name", name))
        if len(volume) > 2:
            causes.append(not_allowed(at, "may not specify more than 1 volume type"))
        sources = (volume.get("projected") or {}).get("sources") or ()
        named = [(at, volume), *((f"{at}.projected.sources[{j}]", s) for j, s in enumerate(sources))]
        for where, source in named:
            for item in (source.get("downwardAPI") or {}).get("items") or ():
                causes += field_path_causes(item, f"{where}.downwardAPI")
    return causes


def pod_spec_causes(spec: Obj, field: str) -> list[Cause]:
    """A PodSpec."""
    volumes = spec.get("volumes") or []
    causes = _volumes(volumes, f"{field}.volumes")
    known = {v.get("name", "") for v in volumes}
    if not spec.get("containers"):
        causes.append(required(f"{field}.containers"))
    seen: set[str] = set()
    for key in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(key) or ()):
            at = f"{field}.{key}[{i}]"
            causes += container_causes(container, known, at)
            if container.get("name") in seen:
                causes.append(duplicate(f"{at}.name", container["name"]))
            seen.add(container.get("name") or "")
    for key, allowed in (
        ("restartPolicy", ["Always", "OnFailure", "Never"]),
        ("dnsPolicy", ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ):
        if spec.get(key) not in allowed:
            causes.append(unsupported(f"{field}.{key}", spec.get(key), allowed))
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        text = "must be greater than or equal to 0"
        causes.append(
            wrong(f"{field}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"], text)
        )
    causes += label_causes(spec.get("nodeSelector"), f"{field}.nodeSelector")
    causes += _tolerations(spec.get("tolerations") or [], f"{field}.tolerations")
    for key in ("serviceAccountName", "nodeName", "hostname"):
        if named := spec.get(key):
            check = names.label_1123 if key == "hostname" else names.subdomain
            causes += [wrong(f"{field}.{key}", named, why) for why in check(named)]
    return causes


def _tolerations(tolerations: list[Obj], field: str) -> list[Cause]:
    causes: list[Cause] = []
    for i, t in enumerate(tolerations):
        operator, at = t.get("operator") or "Equal", f"{field}[{i}]"
        if operator not in ("Equal", "Exists"):
            causes.append(unsupported(f"{at}.operator", operator, ["Equal", "Exists"]))
        elif not t.get("key") and operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(wrong(f"{at}.operator", t.get("operator") or "", text))
        elif operator == "Exists" and t.get("value"):
            causes.append(wrong(f"{at}.operator", t, "value must be empty when `operator` is 'Exists'"))
    return causes


def pod_causes(pod: Obj, old: Obj | None) -> list[Cause]:
    """A new Pod, or what a Pod may become."""
    if old is not None:
        return [] if pod["spec"] == old["spec"] else _changed(pod["spec"], old["spec"])
    return pod_spec_causes(pod["spec"], "spec")


def _changed(new: Obj, old: Obj) -> list[Cause]:
    causes = pod_spec_causes(new, "spec")
    kept = new.get("tolerations") or []
    if any(t not in kept for t in old.get("tolerations") or ()):
        causes.append(
            not_allowed(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )
        )
    if _fixed(new) != _fixed(old):
        causes.append(not_allowed("spec", _IMMUTABLE))
    return causes


def _fixed(spec: Obj) -> Obj:
    """The part of a PodSpec that no update may touch."""
    fixed = {k: copy.copy(v) for k, v in spec.items() if k not in _MUTABLE}
    for key in ("containers", "initContainers"):
        if key in fixed:
            fixed[key] = [{k: v for k, v in c.items() if k != "image"} for c in fixed[key]]
    return fixed
