"""Resources in requests: finding the object, its default names and stamps of metadata."""

import secrets

from towpath.lab.apiserver.call import Call, Server, new_uid
from towpath.lab.apiserver.errors import Obj, bad_request, forbidden, not_found
from towpath.lab.apiserver.schema.check import decode_check
from towpath.lab.apiserver.store import Stored

SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # upstream's alphabet: no vowels, no look-alikes


def suffix() -> str:
    """Five random characters for generateName."""
    return "".join(secrets.choice(SUFFIX) for _ in range(5))


def existing(server: Server, call: Call) -> Stored:
    """The object that the path names. Raises ApiError 404."""
    t = call.target
    found = server.store.get(call.resource.bucket, t.namespace, t.name)
    if found is None:
        raise not_found(*call.refused_name())
    return found


def check_kind(call: Call, obj: Obj, kind: str = "", api_version: str = "") -> None:
    """``kind`` and ``apiVersion`` of the body fit the path, and are filled in where missing. ApiError 400."""
    for key, want in (
        ("apiVersion", api_version or call.resource.api_version),
        ("kind", kind or call.resource.kind),
    ):
        got = obj.setdefault(key, want) or want
        obj[key] = got
        if got != want:
            what = "API version" if key == "apiVersion" else "kind"
            raise bad_request(f"the {what} in the data ({got}) does not match the expected {what} ({want})")


def typed_body(call: Call, type_name: str, kind: str, api_version: str) -> Obj:
    """The body as an object of a builtin type other than the resource's own. Raises ApiError 400, 415."""
    obj = call.decode() if call.body.strip() else {}
    check_kind(call, obj, kind, api_version)
    decode_check(type_name, api_version, obj)
    return obj


def metadata_of(obj: Obj) -> Obj:
    """The object's metadata, made where missing. Raises ApiError 400 when it is no object."""
    meta = obj.get("metadata")
    if meta is None:
        meta = obj["metadata"] = {}
    if not isinstance(meta, dict):
        raise bad_request("metadata: must be an object")
    return meta


def place(server: Server, call: Call, obj: Obj) -> Obj:
    """Namespace and name of a new object; gives its metadata. Raises ApiError 400, 403, 404."""
    meta, target = metadata_of(obj), call.target
    if call.resource.namespaced:
        namespace = meta.get("namespace") or target.namespace
        if namespace != target.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        meta["namespace"] = namespace
        check_namespace(server, call, namespace)
    else:
        meta.pop("namespace", None)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = str(meta["generateName"])[:58] + suffix()
    return meta


def check_namespace(server: Server, call: Call, namespace: str) -> None:
    """The namespace exists and is not going away. Raises ApiError 404, 403."""
    space = server.store.get("/namespaces", "", namespace)
    if space is None:
        raise not_found("", "namespaces", namespace)
    if space.obj["metadata"].get("deletionTimestamp"):
        raise forbidden(
            call.resource.group,
            call.resource.plural,
            call.target.name,
            f"unable to create new content in namespace {namespace} because it is being terminated",
            [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ],
        )


def stamp(server: Server, meta: Obj) -> None:
    """What the server alone decides of a new object's metadata."""
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        meta.pop(key, None)
    meta["uid"] = new_uid()
    meta["creationTimestamp"] = server.timestamp()
