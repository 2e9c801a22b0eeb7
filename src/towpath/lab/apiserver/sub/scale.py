"""``scale`` of workloads and of custom resources: an autoscaling/v1 Scale over two or three paths."""

from typing import Any

import msgspec
from aiohttp import web

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run, decode_body, reply
from towpath.lab.apiserver.errors import Obj, bad_request, conflict, invalid, method_not_allowed
from towpath.lab.apiserver.naming import existing, typed_body
from towpath.lab.apiserver.patch.jsonpatch import PatchRefused, json_patch
from towpath.lab.apiserver.patch.merge import merge_patch
from towpath.lab.apiserver.printers.selector_text import selector_text
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.store import Stored
from towpath.lab.apiserver.validation.field import wrong
from towpath.lab.apiserver.verbs.patching import JSON_PATCH
from towpath.lab.apiserver.verbs.update import fresh, replace_object


def _at(obj: Any, path: str) -> Any:
    for part in path.strip(".").split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _set(obj: Obj, path: str, value: Any) -> None:
    *parents, last = path.strip(".").split(".")
    for part in parents:
        obj = obj.setdefault(part, {})
    obj[last] = value


def _paths(server: Server, call: Call) -> tuple[str, str, str]:
    """Of spec replicas, status replicas and the selector as text ("" where the kind has a structured one)."""
    r = call.resource
    custom = server.schemas.get((r.group, r.version, r.plural))
    if custom is None:
        return "spec.replicas", "status.replicas", ""
    scale = custom.scale
    return scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath") or ""


def scale_of(server: Server, call: Call, stored: Stored) -> Obj:
    """The Scale of an object."""
    obj, meta = stored.obj, stored.obj["metadata"]
    wanted, actual, labels = _paths(server, call)
    keep = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    text = (_at(obj, labels) if labels else None) or selector_text(_at(obj, "spec.selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in keep if k in meta},
        "spec": {"replicas": _at(obj, wanted) or 0},
        "status": {"replicas": _at(obj, actual) or 0, **({"selector": text} if text else {})},
    }


async def scale(server: Server, call: Call, request: web.Request) -> Reply:
    """GET, PUT and PATCH. Raises ApiError."""
    stored = existing(server, call)
    if request.method == "GET":
        return reply(scale_of(server, call, stored))
    if request.method not in ("PUT", "PATCH"):
        raise method_not_allowed("GET, PUT, PATCH")
    check_dry_run(call)
    wanted = _wanted(call, request.method, scale_of(server, call, stored))
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    if request.method == "PUT" and version and version != str(stored.rv):
        raise conflict(*call.refused_name())
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        cause = wrong("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("autoscaling", "Scale", stored.name, [cause])
    obj = fresh(stored)
    _set(obj, _paths(server, call)[0], replicas)
    return reply(scale_of(server, call, replace_object(server, call, stored, obj)))


def _wanted(call: Call, method: str, current: Obj) -> Obj:
    if method == "PUT":
        return typed_body(call, "autoscaling.Scale", "Scale", "autoscaling/v1")
    if call.content_type != JSON_PATCH:
        patched: Obj = merge_patch(current, decode_body(call.body, call.content_type))
        decode_check("autoscaling.Scale", "autoscaling/v1", patched)
        return patched
    try:
        patched = json_patch(current, msgspec.json.decode(call.body))
    except (PatchRefused, msgspec.DecodeError) as e:
        raise bad_request(str(e)) from e
    if not isinstance(patched, dict):
        raise bad_request("the patch does not leave a Scale")
    decode_check("autoscaling.Scale", "autoscaling/v1", patched)
    return patched
