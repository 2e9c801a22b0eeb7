"""Containers and their parts: ports, environment, mounts, probes, resources."""

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

PORT_TEXT = "must be between 1 and 65535, inclusive"
PROTOCOLS = ["SCTP", "TCP", "UDP"]
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?")
_FIELD_PATH = re.compile(
    r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.(nodeName|serviceAccountName|"
    r"restartPolicy|schedulerName)|status\.(phase|hostIPs?|podIPs?)"
)
_QUANTITY_TEXT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SOURCES = ("configMapKeyRef", "fieldRef", "resourceFieldRef", "secretKeyRef", "fileKeyRef")
_HANDLERS = ("exec", "grpc", "httpGet", "sleep", "tcpSocket")


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


def container_causes(c: Obj, volumes: set[str], at: str) -> list[Cause]:
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
        causes += _env(env, f"{at}.env[{i}]")
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in c:
            causes += _handler(c[key], f"{at}.{key}")
    for key, handler in (c.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            causes += _handler(handler, f"{at}.lifecycle.{key}")
    for key in ("limits", "requests"):
        causes += quantity_causes((c.get("resources") or {}).get(key), f"{at}.resources.{key}")
    return causes


def _field_ref(ref: Obj | None, at: str) -> list[Cause]:
    """What the downward API can tell a container."""
    if ref is None:
        return []
    path = ref.get("fieldPath") or ""
    if not path:
        return [required(f"{at}.fieldPath")]
    if _FIELD_PATH.fullmatch(path):
        return []
    return [wrong(f"{at}.fieldPath", path, f"error converting fieldPath: field label not supported: {path}")]


def _env(env: Obj, at: str) -> list[Cause]:
    source = env.get("valueFrom")
    if not env.get("name"):
        return [required(f"{at}.name")]
    if source is None:
        return []
    if env.get("value"):
        return [wrong(f"{at}.valueFrom", "", "may not be specified when `value` is not empty")]
    if not any(k in source for k in _SOURCES):
        text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        return [wrong(f"{at}.valueFrom", "", text)]
    return _field_ref(source.get("fieldRef"), f"{at}.valueFrom.fieldRef")


def _handler(handler: Obj, at: str) -> list[Cause]:
    """A probe or a lifecycle hook: one way to ask, and a port where it needs one."""
    found = [k for k in _HANDLERS if k in handler]
    if len(found) != 1:
        return (
            [not_allowed(at, "may not specify more than 1 handler type")]
            if found
            else [required(at, "must specify a handler type")]
        )
    port = handler[found[0]].get("port", 0)
    if found[0] in ("exec", "sleep") or isinstance(port, str):
        return []
    return port_causes(f"{at}.{found[0]}.port", port)


def field_path_causes(item: Obj, at: str) -> list[Cause]:
    """An item of a downwardAPI volume."""
    causes = [] if item.get("path") else [required(f"{at}.path")]
    ref = item.get("fieldRef")
    if ref is None and item.get("resourceFieldRef") is None:
        causes.append(required(at, "one of fieldRef and resourceFieldRef is required"))
    elif ref is not None and not ref.get("fieldPath"):
        causes.append(required(f"{at}.fieldRef.fieldPath"))
    elif ref is not None and ref["fieldPath"] not in ("metadata.labels", "metadata.annotations"):
        causes += _field_ref(ref, f"{at}.fieldRef")
    return causes
