"""DELETE: preconditions, propagation, finalizers, grace."""

import time

from towpath.lab.apiserver.admission import check_deletable
from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run, reply
from towpath.lab.apiserver.convert import converted
from towpath.lab.apiserver.errors import Obj, bad_request, conflict
from towpath.lab.apiserver.naming import existing
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.store import Stored, encode
from towpath.lab.apiserver.verbs.read import selection
from towpath.lab.apiserver.verbs.update import finished, fresh

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


def options_of(call: Call) -> Obj:
    """``metav1.DeleteOptions`` from the body, else the query. Raises ApiError 400."""
    options = call.decode() if call.body.strip() else {}
    decode_check("meta.DeleteOptions", "meta/v1", options)
    for key in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
        if key in call.query and key not in options:
            options[key] = call.query[key]
    grace = options.get("gracePeriodSeconds")
    if isinstance(grace, str):
        if not grace.lstrip("-").isdigit():
            raise bad_request(f"invalid gracePeriodSeconds {grace!r}")
        options["gracePeriodSeconds"] = int(grace)
    if options.get("propagationPolicy") not in (None, "", "Background", "Foreground", "Orphan"):
        raise bad_request(f"invalid propagationPolicy {options['propagationPolicy']!r}")
    return options


def delete(server: Server, call: Call) -> Reply:
    """Delete one object, or begin to. Raises ApiError."""
    options = options_of(call)
    if options.get("dryRun"):
        call.query = {**call.query, "dryRun": "All"}
    check_dry_run(call)
    old = existing(server, call)
    check_deletable(call, old.name)
    gone, stored = delete_object(server, call, old, options)
    if not gone or call.resource.kind == "Pod":
        return Reply(encode(converted(call.resource, stored.obj)))
    r = call.resource
    details: Obj = {"name": old.name, "kind": r.plural, "uid": old.obj["metadata"]["uid"]}
    if r.group:
        details["group"] = r.group
    return reply(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    )


def delete_collection(server: Server, call: Call) -> Reply:
    """Delete everything selected. Raises ApiError."""
    options, select = options_of(call), selection(call)
    check_dry_run(call)
    found = server.store.list(call.resource.bucket, call.target.namespace or None)
    chosen = [s for s in found if select is None or select(s.obj)]
    for stored in chosen:
        delete_object(server, call, stored, options)
    from towpath.lab.apiserver.render import Plain

    return Reply(Plain(call.resource).many({"resourceVersion": str(server.store.rv)}, chosen))


def delete_object(server: Server, call: Call, old: Stored, options: Obj) -> tuple[bool, Stored]:
    """Whether it is gone, and its last state. Raises ApiError 409 when a precondition fails."""
    _check_preconditions(call, old, options)
    obj = fresh(old)
    meta = obj["metadata"]
    grace = _grace(call, old, options)
    already = meta.get("deletionTimestamp")
    _finalizers(meta, options, bool(already))
    if not already or (grace or 0) < (meta.get("deletionGracePeriodSeconds") or 0):
        meta["deletionGracePeriodSeconds"] = grace or 0
        when = server.now() + (grace or 0)
        meta["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
        if "generation" in meta:
            meta["generation"] += 1
        if call.resource.type == "core.Namespace":
            obj.setdefault("status", {})["phase"] = "Terminating"
    gone = finished(obj)
    if call.dry_run:
        return gone, Stored(old.namespace, old.name, old.rv, obj, b"")
    bucket = call.resource.bucket
    if gone:
        return True, server.store.remove(bucket, old.namespace, old.name)
    if obj == old.obj:
        return False, old
    return False, server.store.put(bucket, old.namespace, old.name, obj)


def _check_preconditions(call: Call, old: Stored, options: Obj) -> None:
    wanted, meta = options.get("preconditions") or {}, old.obj["metadata"]
    for key, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(key) not in (None, "", meta[key]):
            raise conflict(
                call.resource.group,
                call.resource.plural,
                old.name,
                f"Precondition failed: {name} in precondition: {wanted[key]}, {name} in object "
                f"meta: {meta[key]}",
            )


def _grace(call: Call, old: Stored, options: Obj) -> int | None:
    """Seconds a Pod has to stop; others stop at once."""
    if call.resource.type != "core.Pod":
        return None
    spec, status = old.obj.get("spec") or {}, old.obj.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    period = spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked
    return int(period) if period >= 0 else 1


def _finalizers(meta: Obj, options: Obj, already: bool) -> None:
    policy = options.get("propagationPolicy")
    if not policy and options.get("orphanDependents") is True:
        policy = "Orphan"
    if not policy and already:
        return
    kept = [f for f in meta.get("finalizers") or () if f not in (FOREGROUND, ORPHAN) or not policy]
    if policy == "Foreground":
        kept.append(FOREGROUND)
    elif policy == "Orphan":
        kept.append(ORPHAN)
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)
