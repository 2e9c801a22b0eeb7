"""Server-side apply as a verb, and the ownership of fields after other writes.

Owners are tracked from the first apply on: an object that nobody applied has no ``managedFields``, so that
the many writes of controllers and kubelets cost nothing.
"""

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run, decode_body
from towpath.lab.apiserver.convert import converted
from towpath.lab.apiserver.errors import ApiError, Obj, bad_request
from towpath.lab.apiserver.naming import check_kind, metadata_of
from towpath.lab.apiserver.patch.apply import Conflicts, Manager, apply, entries, track
from towpath.lab.apiserver.patch.fieldsets import fields_of, readable
from towpath.lab.apiserver.schema.nodes import Node, builtin_node, custom_node
from towpath.lab.apiserver.store import Stored, encode
from towpath.lab.apiserver.verbs.accept import check_fields
from towpath.lab.apiserver.verbs.create import create_object


def node_of(server: Server, call: Call) -> Node:
    """How the call's resource merges."""
    r = call.resource
    if r.type:
        return builtin_node(r.type)
    found = server.schemas.get((r.group, r.version, r.plural))
    return custom_node(found.schema if found else None)


def manager_of(call: Call, operation: str) -> Manager:
    """From ``fieldManager``, else the first word of the user agent."""
    name = call.query.get("fieldManager") or call.agent.partition("/")[0] or call.user.name
    return Manager(name[:128], operation, call.target.subresource)


def wanted(server: Server, call: Call) -> Obj:
    """The applied configuration. Raises ApiError 400."""
    obj = decode_body(call.body, call.content_type)
    if "fieldManager" not in call.query:
        raise bad_request("fieldManager is required for apply patch")
    check_kind(call, obj)
    meta = metadata_of(obj)
    if meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if meta.setdefault("name", call.target.name) != call.target.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({call.target.name})"
        )
    check_fields(server, call, obj)
    return obj


def create_by_apply(server: Server, call: Call) -> Reply:
    """Apply to an object that does not exist. Raises ApiError."""
    check_dry_run(call)
    obj = wanted(server, call)
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion must not be set when the object does not exist")
    owners = {manager_of(call, "Apply"): fields_of(obj, node_of(server, call))}
    meta["managedFields"] = entries(owners, None, call.resource.api_version, server.timestamp())
    made = create_object(server, call, obj)
    if made is None:
        raise ApiError(409, "Conflict", "the object was created meanwhile")
    return Reply(encode(converted(call.resource, made.obj)), 201)


def applied(server: Server, call: Call, old: Stored, live: Obj) -> Obj:
    """The configuration merged into ``live``, with its new owners. Raises ApiError 409."""
    obj, node = wanted(server, call), node_of(server, call)
    version = obj["metadata"].pop("resourceVersion", None)
    try:
        force = call.query.get("force") in ("true", "1")
        merged, owners = apply(live, obj, node, manager_of(call, "Apply"), force)
    except Conflicts as e:
        raise _conflict(e) from e
    before = live["metadata"].get("managedFields")
    meta = merged["metadata"] = dict(merged["metadata"])
    meta["managedFields"] = entries(owners, before, call.resource.api_version, server.timestamp())
    meta["resourceVersion"] = version or old.obj["metadata"]["resourceVersion"]
    return merged


def _conflict(found: Conflicts) -> ApiError:
    shown = [f'conflict with "{m.name}": {readable(p)}' for m, p in found.found]
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{m.name}"', "field": readable(p)}
        for m, p in found.found
    ]
    plural = "" if len(shown) == 1 else "s"
    message = f"Apply failed with {len(shown)} conflict{plural}: " + "\n- ".join(shown)
    return ApiError(409, "Conflict", message, {"causes": causes})


def follow_owners(server: Server, call: Call, new: Obj, old: Obj) -> None:
    """After a write that was no apply: ``managedFields`` of an object that has them."""
    meta, before = new["metadata"], old["metadata"].get("managedFields")
    given = meta.get("managedFields")
    if given in ([], [{}]):
        meta.pop("managedFields")  # how clients ask to forget all owners
        return
    if given and given != before:
        return  # a client that rewrites ownership itself, as kubectl does when it migrates
    if not before:
        meta.pop("managedFields", None)
        return
    meta["managedFields"] = before
    owners = track(new, old, node_of(server, call), manager_of(call, "Update"))
    meta["managedFields"] = entries(owners, before, call.resource.api_version, server.timestamp())
