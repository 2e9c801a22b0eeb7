"""Subresources of pods that write: binding, eviction, ephemeralcontainers; and finalize of namespaces."""

import math
from typing import Any

from aiohttp import web

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run, reply
from towpath.lab.apiserver.errors import Obj, bad_request, conflict, method_not_allowed, not_found, too_many
from towpath.lab.apiserver.naming import check_kind, existing, typed_body
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.selectors import matches_selector
from towpath.lab.apiserver.store import Stored, encode
from towpath.lab.apiserver.verbs.delete import delete_object
from towpath.lab.apiserver.verbs.patching import patch_object
from towpath.lab.apiserver.verbs.update import fresh, replace_object

SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def bind(server: Server, call: Call, stored: Stored, binding: Obj) -> Reply:
    """Assign a pod to a node. Raises ApiError 409 when it is assigned or going away."""
    target = binding.get("target") or {}
    node = target.get("name") or ""
    if not node or target.get("kind") not in ("", None, "Node"):
        raise bad_request("target.name: Required value: the node to bind to")
    obj = fresh(stored)
    if obj["metadata"].get("deletionTimestamp"):
        raise conflict(
            "",
            "pods/binding",
            stored.name,
            f"pod {stored.name} is being deleted, cannot be assigned to a host",
        )
    if obj["spec"].get("nodeName"):
        raise conflict(
            "",
            "pods/binding",
            stored.name,
            f'pod {stored.name} is already assigned to node "{obj["spec"]["nodeName"]}"',
        )
    obj["spec"]["nodeName"] = node
    for key in ("annotations", "labels"):
        if more := (binding.get("metadata") or {}).get(key):
            obj["metadata"][key] = {**(obj["metadata"].get(key) or {}), **more}
    now = server.timestamp()
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [c for c in conditions if c.get("type") != "PodScheduled"]
    conditions.append(
        {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    )
    if not call.dry_run:
        server.store.put("/pods", stored.namespace, stored.name, obj)
    return reply(SUCCESS, 201)


async def binding(server: Server, call: Call, request: web.Request) -> Reply:
    """POST of a Binding. Raises ApiError."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    check_dry_run(call)
    body = typed_body(call, "core.Binding", "Binding", "v1")
    return bind(server, call, existing(server, call), body)


async def eviction(server: Server, call: Call, request: web.Request) -> Reply:
    """POST of an Eviction: a deletion that disruption budgets may forbid. Raises ApiError 429."""
    if request.method != "POST":
        raise method_not_allowed("POST")
    body = call.decode()
    if body.get("apiVersion") == "policy/v1beta1":  # what kubectl drain before 1.22 sends
        body = {**body, "apiVersion": "policy/v1"}
    check_kind(call, body, "Eviction", "policy/v1")
    decode_check("policy.Eviction", "policy/v1", body)
    stored = existing(server, call)
    options = body.get("deleteOptions") or {}
    if options.get("dryRun"):
        call.query = {**call.query, "dryRun": "All"}
    check_dry_run(call)
    if not _over(stored.obj):
        _check_budgets(server, stored)
    delete_object(server, call, stored, options)
    return reply(SUCCESS, 201)


def _over(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return bool(pod["metadata"].get("deletionTimestamp")) or status.get("phase") in (
        "Succeeded",
        "Failed",
        "Pending",
    )


def _ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _share(value: Any, total: int) -> int:
    """A count, or a percentage of the total rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(int(value[:-1]) * total / 100)
    return int(value)


def _check_budgets(server: Server, stored: Stored) -> None:
    """Counted here and now, as there is no disruption controller: every pod selected is expected."""
    labels = stored.obj["metadata"].get("labels") or {}
    for budget in server.store.list("policy/poddisruptionbudgets", stored.namespace):
        spec = budget.obj.get("spec") or {}
        if not matches_selector(spec.get("selector"), labels):
            continue
        pods = [
            p.obj
            for p in server.store.list("/pods", stored.namespace)
            if matches_selector(spec.get("selector"), p.obj["metadata"].get("labels") or {})
        ]
        if "maxUnavailable" in spec:
            needed = len(pods) - _share(spec["maxUnavailable"], len(pods))
        else:
            needed = _share(spec.get("minAvailable", 0), len(pods))
        healthy = sum(_ready(p) and not p["metadata"].get("deletionTimestamp") for p in pods)
        if _ready(stored.obj) and healthy - 1 < needed:
            message = (
                f"The disruption budget {budget.name} needs {needed} healthy pods and has {healthy} currently"
            )
            raise too_many(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                [{"reason": "DisruptionBudget", "message": message}],
            )


async def ephemeral_containers(server: Server, call: Call, request: web.Request) -> Reply:
    """GET, PUT and PATCH of a pod by way of its ephemeral containers alone. Raises ApiError."""
    stored = existing(server, call)
    if request.method == "GET":
        return Reply(stored.raw)
    if request.method == "PATCH":
        return Reply(encode(patch_object(server, call, stored).obj))
    if request.method != "PUT":
        raise method_not_allowed("GET, PUT, PATCH")
    body = typed_body(call, "core.Pod", "Pod", "v1")
    return Reply(encode(replace_object(server, call, stored, body).obj))


async def finalize(server: Server, call: Call, request: web.Request) -> Reply:
    """PUT of a Namespace whose spec.finalizers have changed. Raises ApiError."""
    if request.method != "PUT":
        raise method_not_allowed("PUT")
    stored = existing(server, call)
    body = typed_body(call, "core.Namespace", "Namespace", "v1")
    return Reply(encode(replace_object(server, call, stored, body).obj))


def bind_by_collection(server: Server, call: Call) -> Reply:
    """POST to ``bindings``, the old way. Raises ApiError."""
    body = typed_body(call, "core.Binding", "Binding", "v1")
    name = str((body.get("metadata") or {}).get("name") or "")
    stored = server.store.get("/pods", call.target.namespace, name)
    if stored is None:
        raise not_found("", "pods", name)
    return bind(server, call, stored, body)
