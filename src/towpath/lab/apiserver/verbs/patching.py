"""PATCH: which format, applied to what, answered how."""

from towpath.lab.apiserver.call import Call, Reply, Server, check_dry_run, decode_body
from towpath.lab.apiserver.convert import converted, stored_form
from towpath.lab.apiserver.errors import ApiError, Obj, Unmarshalled, bad_request, invalid, unsupported_media
from towpath.lab.apiserver.naming import existing
from towpath.lab.apiserver.patch import jsonpatch, strategic
from towpath.lab.apiserver.patch.merge import merge_patch
from towpath.lab.apiserver.store import Stored, encode
from towpath.lab.apiserver.validation.field import wrong
from towpath.lab.apiserver.verbs.accept import check_fields
from towpath.lab.apiserver.verbs.applying import applied, create_by_apply
from towpath.lab.apiserver.verbs.update import fresh, replace_object

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
ACCEPTED = [JSON_PATCH, MERGE, STRATEGIC, APPLY]


def patched(call: Call, document: Obj) -> Obj:
    """``document``, which is consumed, under the body's patch. Raises ApiError 400, 415, 422."""
    media = call.content_type
    if media == STRATEGIC and not call.resource.type:
        raise unsupported_media(media, [JSON_PATCH, MERGE, APPLY])
    if media == JSON_PATCH:
        import msgspec

        try:
            result = jsonpatch.json_patch(document, msgspec.json.decode(call.body))
        except msgspec.DecodeError as e:
            raise bad_request(f"error decoding patch: {e}") from e
        except jsonpatch.PatchRefused as e:
            text = f"the server rejected our request due to an error in our request: {e}"
            causes = [{"reason": "UnexpectedServerResponse", "message": str(e)}]
            raise ApiError(422, "Invalid", text, {"causes": causes}) from e
    elif media == MERGE:
        result = merge_patch(document, decode_body(call.body, media))
    elif media == STRATEGIC:
        try:
            result = strategic.strategic_merge(document, decode_body(call.body, media), call.resource.type)
        except strategic.PatchRefused as e:
            raise bad_request(str(e)) from e
    else:
        raise unsupported_media(media, ACCEPTED)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise bad_request("the patch does not leave an object with metadata")
    return result


def patch(server: Server, call: Call) -> Reply:
    """PATCH of an object or its status. Raises ApiError."""
    check_dry_run(call)
    if call.content_type == APPLY:
        t = call.target
        found = server.store.get(call.resource.bucket, t.namespace, t.name)
        if found is None and not t.subresource:
            return create_by_apply(server, call)
    stored = patch_object(server, call, existing(server, call))
    return Reply(encode(converted(call.resource, stored.obj)))


def patch_object(server: Server, call: Call, old: Stored) -> Stored:
    """Apply the body to ``old`` and store the result. Raises ApiError."""
    document = fresh(old)
    if old.obj.get("apiVersion") != call.resource.api_version:
        document = dict(converted(call.resource, document))
    before = document["metadata"]["resourceVersion"]
    if call.content_type == APPLY:
        result = applied(server, call, old, document)
        return replace_object(server, call, old, stored_form(call.resource, result), applied=True)
    result = patched(call, document)
    if result.get("apiVersion") != call.resource.api_version or result.get("kind") != call.resource.kind:
        raise bad_request("a patch may not change apiVersion or kind")
    if result["metadata"].get("resourceVersion") in (None, ""):
        result["metadata"]["resourceVersion"] = before
    try:
        check_fields(server, call, result)
    except Unmarshalled as e:  # of a patch, upstream says so otherwise than of a whole object
        raise invalid("", "", "", [wrong("patch", call.body.decode(errors="replace"), e.message)]) from e
    return replace_object(server, call, old, stored_form(call.resource, result))
