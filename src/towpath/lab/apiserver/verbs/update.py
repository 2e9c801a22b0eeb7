"""PUT and PATCH: read, change, check, write, in one step of the event loop."""

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run
from towpath.lab.apiserver.convert import converted, stored_form
from towpath.lab.apiserver.errors import Obj, bad_request, conflict
from towpath.lab.apiserver.naming import check_kind, existing, metadata_of
from towpath.lab.apiserver.store import Stored, decode_object, encode
from towpath.lab.apiserver.verbs.accept import check_fields, counts_generation, fill, validate
from towpath.lab.apiserver.verbs.applying import follow_owners

SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
)
# kinds whose status subresource also takes labels and annotations (flanneld and kubelets rely on it)
STATUS_TAKES_METADATA = frozenset(("core.Node", "core.Pod", "core.Namespace", "core.Service"))


def update(server: Server, call: Call) -> Reply:
    """PUT of an object or its status. Raises ApiError."""
    check_dry_run(call)
    old = existing(server, call)
    obj = call.decode()
    check_kind(call, obj)
    check_fields(server, call, obj)
    stored = replace_object(server, call, old, stored_form(call.resource, obj))
    return Reply(encode(converted(call.resource, stored.obj)))


def fresh(stored: Stored) -> Obj:
    """A copy of an object that may be changed."""
    if stored.raw:
        return decode_object(stored.raw)
    return decode_object(encode(stored.obj))


def replace_object(server: Server, call: Call, old: Stored, obj: Obj, applied: bool = False) -> Stored:
    """Store ``obj`` in place of ``old``, as the subresource of the call allows. Raises ApiError.

    An object that turns out the same is not written. One that is being deleted and has lost its last
    finalizer is removed. ``applied``: the owners of its fields are already what they shall be.
    """
    r, sub = call.resource, call.target.subresource
    _check_identity(call, old, obj)
    meta, was = obj["metadata"], old.obj["metadata"]
    for key in SERVER_OWNED:
        if key in was:
            meta[key] = was[key]
        else:
            meta.pop(key, None)
    meta.pop("selfLink", None)
    obj["apiVersion"] = obj.get("apiVersion") or r.api_version
    _separate(call, obj, old.obj)
    meta = obj["metadata"]
    fill(server, call, obj, old.obj)
    if counts_generation(call) and sub != "status" and _spec_of(obj) != _spec_of(old.obj):
        meta["generation"] = int(was.get("generation") or 0) + 1
    validate(server, call, obj, old.obj)
    if not applied and (meta.get("managedFields") is not None or "managedFields" in was):
        follow_owners(server, call, obj, old.obj)
    meta["resourceVersion"] = was["resourceVersion"]
    if call.dry_run or obj == old.obj:
        return Stored(old.namespace, old.name, old.rv, obj, b"")
    if finished(obj):  # the change itself is never seen, only the deletion
        gone = server.store.remove(r.bucket, old.namespace, old.name)
        return Stored(old.namespace, old.name, gone.rv, obj, b"")
    return server.store.put(r.bucket, old.namespace, old.name, obj)


def finished(obj: Obj) -> bool:
    """Whether an object under deletion waits for nothing any more."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def _check_identity(call: Call, old: Stored, obj: Obj) -> None:
    meta, was = metadata_of(obj), old.obj["metadata"]
    name = meta.setdefault("name", old.name)
    if name != old.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({old.name})")
    if call.resource.namespaced:
        if meta.setdefault("namespace", old.namespace) != old.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    else:
        meta.pop("namespace", None)
    if meta.get("resourceVersion") not in (None, "", "0", was["resourceVersion"]):
        raise conflict(*call.refused_name())
    if meta.get("uid") not in (None, "", was["uid"]):
        raise conflict(
            *call.refused_name(),
            f"Precondition failed: UID in precondition: {was['uid']}, UID in object meta: {meta['uid']}",
        )


def _separate(call: Call, obj: Obj, old: Obj) -> None:
    """Spec and status each have their own door."""
    r = call.resource
    if call.target.subresource == "status":
        status = obj.pop("status", None)
        meta = obj["metadata"]
        for key in [k for k in obj if k not in ("kind", "apiVersion", "metadata")]:
            del obj[key]
        obj.update({k: v for k, v in old.items() if k not in ("kind", "apiVersion", "metadata", "status")})
        if status is not None:
            obj["status"] = status
        if r.type not in STATUS_TAKES_METADATA:
            managed = meta.get("managedFields")
            obj["metadata"] = {**old["metadata"], **({"managedFields": managed} if managed else {})}
        else:
            for key in ("ownerReferences", "finalizers"):
                meta.pop(key, None)
                if key in old["metadata"]:
                    meta[key] = old["metadata"][key]
    elif call.target.subresource == "finalize":
        finalizers = (obj.get("spec") or {}).get("finalizers")
        obj.clear()
        obj.update(old)
        obj["metadata"] = dict(old["metadata"])
        obj["spec"] = {**(old.get("spec") or {}), "finalizers": finalizers or []}
    elif r.sub("status"):
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]
        if r.type == "core.Namespace":
            obj["spec"] = {
                **(obj.get("spec") or {}),
                "finalizers": (old.get("spec") or {}).get("finalizers") or [],
            }


def _spec_of(obj: Obj) -> Obj:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "kind", "apiVersion")}
