"""Strategic merge patch, as k8s.io/apimachinery/pkg/util/strategicpatch defines it.

Lists merge by the keys that the types declare. Directives: ``$patch`` (replace, delete, merge),
``$retainKeys``, ``$deleteFromPrimitiveList/F``, ``$setElementOrder/F``.
"""

from typing import Any

from towpath.lab.apiserver.schema.types import Field, field_of

ORDER, DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


class PatchRefused(ValueError):
    """A patch that does not fit its type; the text says how."""


def strategic_merge(original: dict[str, Any], patch: dict[str, Any], type_name: str) -> dict[str, Any]:
    """The patched object; the arguments stay as they are, parts that stay are shared."""
    directive = patch.get("$patch")
    if directive is not None:
        rest = {k: v for k, v in patch.items() if k != "$patch"}
        if directive == "replace":
            return rest
        if directive == "delete":
            return {}
        if directive != "merge":
            raise PatchRefused(f"Unknown patch type {directive!r}: use replace, delete or merge")
        patch = rest
    keep = patch.get("$retainKeys")
    if keep is not None:
        _check_retained(keep, patch)
        original = {k: v for k, v in original.items() if k in keep}
    merged = dict(original)
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(merged, key, value, patch)
    for key, value in patch.items():
        if not key.startswith("$"):
            _member(merged, key, value, type_name, patch.get(ORDER + key))
    for directive, order in patch.items():
        name = directive.removeprefix(ORDER)
        if name != directive and name not in patch and isinstance(merged.get(name), list):
            key = _merge_key(type_name, name)
            merged[name] = _reorder(merged[name], order, original.get(name) or [], key)
    return merged


def _check_retained(keep: Any, patch: dict[str, Any]) -> None:
    if not isinstance(keep, list):
        raise PatchRefused("$retainKeys must be a list")
    lost = [k for k, v in patch.items() if not k.startswith("$") and v is not None and k not in keep]
    if lost:
        raise PatchRefused(f"the directive $retainKeys lacks fields that the patch sets: {', '.join(lost)}")


def _directive(merged: dict[str, Any], key: str, value: Any, patch: dict[str, Any]) -> None:
    if key.startswith(DELETE):
        name = key.removeprefix(DELETE)
        if isinstance(merged.get(name), list) and isinstance(value, list):
            merged[name] = [x for x in merged[name] if x not in value]
    elif key != "$retainKeys" and not key.startswith(ORDER):
        raise PatchRefused(f"unknown directive {key}")


def _merge_key(type_name: str, name: str) -> str:
    field = field_of(type_name, name)
    return (field.merge if field else "") or ""


def _member(merged: dict[str, Any], key: str, value: Any, type_name: str, order: Any) -> None:
    if value is None:
        merged.pop(key, None)
        return
    field = field_of(type_name, key)
    inner = field.type if field and field.shape != "{}" and not field.scalar else ""
    old = merged.get(key)
    if isinstance(value, dict):
        replace = field is not None and field.replace
        merged[key] = strategic_merge(old if isinstance(old, dict) and not replace else {}, value, inner)
    elif isinstance(value, list):
        merged[key] = _list(old if isinstance(old, list) else [], value, field, inner, order)
    else:
        merged[key] = value


def _list(old: list[Any], patch: list[Any], field: Field | None, inner: str, order: Any) -> list[Any]:
    if field is None or field.merge is None:
        return [_stripped(e) for e in patch]
    if field.merge == "":
        merged = [*old, *(x for x in patch if x not in old)]
        return _ordered(merged, patch, order, old, "")
    merged = _merge_by_key(old, patch, field.merge, inner)
    ours = [e for e in patch if "$patch" not in e]
    return _ordered(merged, ours, order, old, field.merge)


def _ordered(merged: list[Any], patch: list[Any], order: Any, server: list[Any], key: str) -> list[Any]:
    """In the patch's own order, then in that of ``$setElementOrder`` where there is one."""
    merged = _reorder(merged, patch, server, key)
    if order is None:
        return merged
    _check_order(patch, order, key)
    return _reorder(merged, order, server, key)


def _stripped(element: Any) -> Any:
    return strategic_merge({}, element, "") if isinstance(element, dict) and "$patch" in element else element


def _key_of(element: Any, key: str) -> Any:
    if not isinstance(element, dict):
        raise PatchRefused(f"a list that merges by {key!r} holds {element!r}, which is no object")
    if key not in element:
        raise PatchRefused(f"map: {element} does not contain declared merge key: {key}")
    return element[key]


def _merge_by_key(old: list[Any], patch: list[Any], key: str, inner: str) -> list[Any]:
    directives = [e.get("$patch") if isinstance(e, dict) else None for e in patch]
    if "replace" in directives:
        return [e for e, d in zip(patch, directives, strict=True) if d is None]
    gone = [_key_of(e, key) for e, d in zip(patch, directives, strict=True) if d == "delete"]
    merged = [e for e in old if not (isinstance(e, dict) and e.get(key) in gone)]
    for element, directive in zip(patch, directives, strict=True):
        if directive == "delete":
            continue
        wanted = _key_of(element, key)
        at = next((i for i, e in enumerate(merged) if isinstance(e, dict) and e.get(key) == wanted), None)
        if at is None:
            merged.append(strategic_merge({}, element, inner))
        else:
            merged[at] = strategic_merge(merged[at], element, inner)
    return merged


def _reorder(merged: list[Any], order: Any, server: list[Any], key: str) -> list[Any]:
    """Elements named in ``order`` in that order; the others between them as the server had them.

    An element that the server did not have comes before the others.
    """
    if not isinstance(order, list):
        raise PatchRefused("$setElementOrder must be a list")

    def ident(element: Any) -> Any:
        return element.get(key) if key and isinstance(element, dict) else element

    wanted = [ident(e) for e in order]
    had = [ident(e) for e in server]
    named = sorted((e for e in merged if ident(e) in wanted), key=lambda e: wanted.index(ident(e)))
    others = [e for e in merged if ident(e) not in wanted]
    result: list[Any] = []
    while named and others:
        ours, theirs = ident(named[0]), ident(others[0])
        known = ours in had and theirs in had
        result.append((others if known and had.index(theirs) < had.index(ours) else named).pop(0))
    return result + named + others


def _check_order(patch: list[Any], order: Any, key: str) -> None:
    """Elements that a patch sets come in the order that it asks for."""
    if not isinstance(order, list):
        raise PatchRefused("$setElementOrder must be a list")
    wanted = [e.get(key) if key and isinstance(e, dict) else e for e in order]
    ours = [e.get(key) if key and isinstance(e, dict) else e for e in patch]
    places = [wanted.index(x) for x in ours if x in wanted]
    if len(places) < len(ours) or places != sorted(places):
        raise PatchRefused(
            f"The order in patch list:\n{ours}\n doesn't match $setElementOrder list:\n{wanted}\n"
        )
