"""Pods and pod templates (k8s.io/kubernetes/pkg/apis/core/validation), as far as people get them wrong."""

import copy
import re
from typing import Any

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import names
from towpath.lab.apiserver.validation.field import (
    duplicate,
    not_allowed,
    not_found_value,
    required,
    unsupported,
    wrong,
)
from towpath.lab.apiserver.validation.metadata import label_causes

PORT_TEXT = "must be between 1 and 65535, inclusive"
PROTOCOLS = ["SCTP", "TCP", "UDP"]
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")
_QUANTITY_TEXT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
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


def port_causes(field: str, value: Any) -> list[Cause]:
    """A port's number."""
    return [] if isinstance(value, int) and 1 <= value <= 65535 else [wrong(field, value or 0, PORT_TEXT)]


def quantity_causes(quantities: Obj | None, field: str) -> list[Cause]:
    """Values of a resource list."""
    causes: list[Cause] = []
    for key, value in (quantities or {}).items():
        if not QUANTITY.fullmatch(str(value)):
            causes.append(wrong(f"{field}[{key}]", value, _QUANTITY_TEXT))
        elif str(value).startswith("-"):
            causes.append(wrong(f"{field}[{key}]", value, "must be greater than or equal to 0"))
    return causes


def _ports(ports: list[Obj], field: str) -> list[Cause]:
    causes: list[Cause] = []
    for i, port in enumerate(ports):
        at = f"{field}[{i}]"
        if not port.get("containerPort"):
            causes.append(required(f"{at}.containerPort"))
        else:
            causes += port_causes(f"{at}.containerPort", port["containerPort"])
        if port.get("hostPort"):
            causes += port_causes(f"{at}.hostPort", port["hostPort"])
        if port.get("protocol") not in PROTOCOLS:
            causes.append(unsupported(f"{at}.protocol", port.get("protocol") or "", PROTOCOLS))
        if name := port.get("name"):
            if len(name) > 15:
                causes.append(wrong(f"{at}.name", name, "must be no more than 15 characters"))
            if not re.fullmatch(r"[-a-z0-9]+", name) or not re.search(r"[a-z]", name):
                causes.append(
                    wrong(
                        f"{at}.name",
                        name,
                        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                    )
                )
            if any(p.get("name") == name for p in ports[:i]):
                causes.append(duplicate(f"{at}.name", name))
    return causes


def _mounts(mounts: list[Obj], volumes: set[str], field: str) -> list[Cause]:
    causes: list[Cause] = []
    for i, mount in enumerate(mounts):
        at, path = f"{field}[{i}]", mount.get("mountPath")
        if not mount.get("name"):
            causes.append(required(f"{at}.name"))
        elif mount["name"] not in volumes:
            causes.append(not_found_value(f"{at}.name", mount["name"]))
        if not path:
            causes.append(required(f"{at}.mountPath"))
        elif any(m.get("mountPath") == path for m in mounts[:i]):
            causes.append(wrong(f"{at}.mountPath", path, "must be unique"))
    return causes


def _container(c: Obj, volumes: set[str], at: str) -> list[Cause]:
    causes: list[Cause] = []
    if not c.get("name"):
        causes.append(required(f"{at}.name"))
    else:
        causes += [wrong(f"{at}.name", c["name"], why) for why in names.label_1123(c["name"])]
    image = c.get("image") or ""
    if not image:
        causes.append(required(f"{at}.image"))
    elif image != image.strip():
        causes.append(wrong(f"{at}.image", image, "must not have leading or trailing whitespace"))
    policies = ["Always", "IfNotPresent", "Never"]
    if c.get("imagePullPolicy") not in policies:
        causes.append(unsupported(f"{at}.imagePullPolicy", c.get("imagePullPolicy"), policies))
    causes += _ports(c.get("ports") or [], f"{at}.ports")
    causes += _mounts(c.get("volumeMounts") or [], volumes, f"{at}.volumeMounts")
    for i, env in enumerate(c.get("env") or ()):
        if not env.get("name"):
            causes.append(required(f"{at}.env[{i}].name"))
        elif env.get("value") and env.get("valueFrom"):
            causes.append(
                wrong(f"{at}.env[{i}].valueFrom", "", "may not be specified when `value` is not empty")
            )
    for key in ("limits", "requests"):
        causes += quantity_causes((c.get("resources") or {}).get(key), f"{at}.resources.{key}")
    return causes


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
            causes += _container(container, known, at)
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
    for key in ("serviceAccountName", "nodeName", "hostname"):
        if named := spec.get(key):
            check = names.label_1123 if key == "hostname" else names.subdomain
            causes += [wrong(f"{field}.{key}", named, why) for why in check(named)]
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
