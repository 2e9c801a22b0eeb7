"""GET of an object and of a collection, in pages where asked."""

import base64
import secrets
from collections.abc import Callable

import msgspec

from towpath.lab.apiserver.call import Call, Reply, Server
from towpath.lab.apiserver.errors import Obj, bad_request, expired, too_large_version
from towpath.lab.apiserver.naming import existing
from towpath.lab.apiserver.render import view_of
from towpath.lab.apiserver.selectors import field_selector, label_selector, supported_fields
from towpath.lab.apiserver.store import Stored

SNAPSHOTS = 32  # lists in pages that are remembered

Select = Callable[[Obj], bool]


def get(server: Server, call: Call) -> Reply:
    """One object. Raises ApiError 404."""
    asked_version(server, call)
    view = view_of(server, call)
    return Reply(view.one(existing(server, call)))


def selection(call: Call) -> Select | None:
    """The label and field selectors of the query as one predicate; None selects all. Raises ApiError 400."""
    r = call.resource
    by_label = label_selector(call.query.get("labelSelector") or "")
    text = call.query.get("fieldSelector") or ""
    by_field = field_selector(text, supported_fields(r.kind, r.namespaced, r.selectable)) if text else None
    if call.target.name:
        name = call.target.name
        return lambda obj: obj["metadata"]["name"] == name
    if by_label is None:
        return by_field
    labels = by_label

    def select(obj: Obj) -> bool:
        found = labels(obj["metadata"].get("labels") or {})
        return found and (by_field is None or by_field(obj))

    return select


def asked_version(server: Server, call: Call) -> int | None:
    """The query's resourceVersion; None where there is none. Raises ApiError 400, 504."""
    text = call.query.get("resourceVersion") or ""
    if not text:
        return None
    if not text.isdigit():
        raise bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    version = int(text)
    if version > server.store.rv:
        raise too_large_version(version, server.store.rv)
    return version


def limit_of(call: Call) -> int:
    """``limit``, 0 for none. Raises ApiError 400."""
    text = call.query.get("limit") or "0"
    try:
        return max(int(text), 0)
    except ValueError as e:
        raise bad_request(f'limit: Invalid value: "{text}"') from e


def listing(server: Server, call: Call) -> Reply:
    """A collection, or the next page of one. Raises ApiError 400, 410."""
    view, limit, token = view_of(server, call), limit_of(call), call.query.get("continue") or ""
    if token:
        rv, found, start = _resume(server, token)
    else:
        version = asked_version(server, call)
        exact = call.query.get("resourceVersionMatch") == "Exact"
        if exact and version is not None and version != server.store.rv:
            raise expired(
                f"The provided resource version {version} is too old, the server keeps only the current one"
            )
        rv, start = server.store.rv, 0
        found = server.store.list(call.resource.bucket, call.target.namespace or None)
        if select := selection(call):
            found = [s for s in found if select(s.obj)]
    page = found[start : start + limit] if limit else found[start:]
    meta: Obj = {"resourceVersion": str(rv)}
    left = len(found) - start - len(page)
    if left > 0:
        meta["continue"] = _remember(server, token, rv, found, start + len(page))
        meta["remainingItemCount"] = left
    return Reply(view.many(meta, page))


def _remember(server: Server, token: str, rv: int, found: list[Stored], start: int) -> str:
    number = _open(token)["id"] if token else secrets.token_hex(8)
    server.snapshots[number] = (rv, found)
    while len(server.snapshots) > SNAPSHOTS:
        del server.snapshots[next(iter(server.snapshots))]
    body = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": rv, "id": number, "start": start})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _open(token: str) -> Obj:
    try:
        body = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=dict)
        return {"id": str(body["id"]), "start": int(body["start"])}
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as e:
        raise bad_request("continue key is not valid") from e


def _resume(server: Server, token: str) -> tuple[int, list[Stored], int]:
    opened = _open(token)
    remembered = server.snapshots.get(opened["id"])
    if remembered is None:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. You "
            "can start a new "
            "list without the continue parameter."
        )
    rv, found = remembered
    return rv, found, opened["start"]
