"""POST to a collection."""

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run
from towpath.lab.apiserver.convert import converted, stored_form
from towpath.lab.apiserver.errors import Obj, already_exists, bad_request
from towpath.lab.apiserver.naming import check_kind, metadata_of, place, stamp, suffix
from towpath.lab.apiserver.store import Stored, encode
from towpath.lab.apiserver.verbs.accept import check_fields, counts_generation, fill, validate

KEEPS_STATUS = frozenset(("core.Node",))  # kubelets register with their status
TRIES = 8  # for a generated name


def create(server: Server, call: Call) -> Reply:
    """Create what the body describes. Raises ApiError."""
    check_dry_run(call)
    obj = call.decode()
    check_kind(call, obj)
    generated = _generated(obj)
    metadata_of(obj).pop("managedFields", None)
    made = create_object(server, call, obj)
    for _ in range(TRIES if generated else 0):
        if made is not None:
            break
        obj["metadata"]["name"] = generated + suffix()
        made = _store(server, call, obj)
    if made is None:
        raise already_exists(call.resource.group, call.resource.plural, obj["metadata"]["name"])
    return Reply(encode(converted(call.resource, made.obj)), 201)


def _generated(obj: Obj) -> str:
    meta = obj.get("metadata") or {}
    return str(meta.get("generateName") or "")[:58] if isinstance(meta, dict) and not meta.get("name") else ""


def create_object(server: Server, call: Call, obj: Obj) -> Stored | None:
    """Fill in, validate and store; None when the name is taken. Raises ApiError."""
    check_fields(server, call, obj)
    meta = place(server, call, obj)
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    stamp(server, meta)
    if counts_generation(call):
        meta["generation"] = 1
    else:
        meta.pop("generation", None)
    if call.resource.sub("status") and call.resource.type not in KEEPS_STATUS:
        obj.pop("status", None)
    obj = stored_form(call.resource, obj)
    fill(server, call, obj, None)
    validate(server, call, obj, None)
    return _store(server, call, obj)


def _store(server: Server, call: Call, obj: Obj) -> Stored | None:
    meta, bucket = obj["metadata"], call.resource.bucket
    namespace, name = meta.get("namespace") or "", meta["name"]
    if server.store.get(bucket, namespace, name) is not None:
        return None
    if call.dry_run:
        return Stored(namespace, name, 0, obj, b"")
    return server.store.put(bucket, namespace, name, obj)
