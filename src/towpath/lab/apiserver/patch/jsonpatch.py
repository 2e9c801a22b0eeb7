"""JSON patch, RFC 6902, with pointers of RFC 6901."""

import copy
from typing import Any


class PatchRefused(ValueError):
    """An operation that cannot be carried out; the text names the path and why."""


def _segments(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise PatchRefused(f"invalid JSON pointer {pointer!r}")
    return [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]


def _index(segment: str, length: int, pointer: str) -> int:
    if not segment.isascii() or not segment.isdigit() or (segment[0] == "0" and segment != "0"):
        raise PatchRefused(f"{pointer}: {segment!r} is no array index")
    if int(segment) >= length:
        raise PatchRefused(f"{pointer}: index {segment} out of bounds")
    return int(segment)


def _get(document: Any, segments: list[str], pointer: str) -> Any:
    for s in segments:
        if isinstance(document, dict):
            if s not in document:
                raise PatchRefused(f"{pointer}: does not exist")
            document = document[s]
        elif isinstance(document, list):
            document = document[_index(s, len(document), pointer)]
        else:
            raise PatchRefused(f"{pointer}: does not exist")
    return document


def _add(document: Any, pointer: str, value: Any) -> Any:
    *parents, last = _segments(pointer) or [""]
    if pointer == "":
        return value
    parent = _get(document, parents, pointer)
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1, pointer), value)
    else:
        raise PatchRefused(f"{pointer}: parent is no object or array")
    return document


def _remove(document: Any, pointer: str) -> Any:
    if pointer == "":
        raise PatchRefused("cannot remove the whole document")
    *parents, last = _segments(pointer)
    parent = _get(document, parents, pointer)
    if isinstance(parent, dict):
        if last not in parent:
            raise PatchRefused(f"{pointer}: does not exist")
        return parent.pop(last)
    if isinstance(parent, list):
        return parent.pop(_index(last, len(parent), pointer))
    raise PatchRefused(f"{pointer}: does not exist")


def equal(a: Any, b: Any) -> bool:
    """Equality of JSON values: ``1 == 1.0``, but ``true`` is no number."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def _member(operation: dict[str, Any], name: str) -> Any:
    if name not in operation:
        raise PatchRefused(f"operation {operation.get('op')!r} lacks {name!r}")
    return operation[name]


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    op, path = operation.get("op"), _member(operation, "path")
    segments = _segments(path)
    match op:
        case "add":
            return _add(document, path, copy.deepcopy(_member(operation, "value")))
        case "remove":
            _remove(document, path)
        case "replace":
            _get(document, segments, path)
            value = copy.deepcopy(_member(operation, "value"))
            if path == "":
                return value
            parent = _get(document, segments[:-1], path)
            parent[segments[-1] if isinstance(parent, dict) else int(segments[-1])] = value
        case "move":
            source = _member(operation, "from")
            if path != source and path.startswith(f"{source}/"):
                raise PatchRefused(f"cannot move {source} into itself")
            _get(document, _segments(source), source)
            return document if path == source else _add(document, path, _remove(document, source))
        case "copy":
            source = _member(operation, "from")
            return _add(document, path, copy.deepcopy(_get(document, _segments(source), source)))
        case "test":
            if not equal(_get(document, segments, path), _member(operation, "value")):
                raise PatchRefused(f"testing value {path} failed")
        case _:
            raise PatchRefused(f"unknown operation {op!r}")
    return document


def json_patch(document: Any, operations: Any) -> Any:
    """The patched document. ``document`` is consumed: changed in place, also when PatchRefused is raised."""
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise PatchRefused("a JSON patch is an array of operations")
    for operation in operations:
        document = _apply(document, operation)
    return document
