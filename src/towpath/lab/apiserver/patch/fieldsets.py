"""Sets of fields: who owns what, as ``managedFields`` write it (FieldsV1). Pure.

A path is a tuple of elements: ``f:name``, ``k:{"name":"x"}`` for a list element by its keys, ``v:"x"`` for an
element of a set. A list element is itself in the set, apart from its fields.
"""

import json
from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.schema.nodes import Node

Path = tuple[str, ...]
FieldSet = frozenset[Path]
EMPTY: FieldSet = frozenset()
MISSING = object()

_SERVER_METADATA = (
    "name", "namespace", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields",
)  # fmt: skip


def compact(value: Any) -> str:
    """JSON without blanks, keys sorted."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def element(item: Any, node: Node) -> str | None:
    """The path element of a list's item; None where it lacks a key."""
    if node.kind == "set":
        return f"v:{compact(item)}"
    if not isinstance(item, dict):
        return None
    keys = {k: item.get(k, node.defaults.get(k)) for k in node.keys}
    return None if None in keys.values() else f"k:{compact(keys)}"


def children(value: Any, node: Node) -> list[tuple[str, Any, Node]]:
    """Path element, value and node of each part; [] for a leaf."""
    if isinstance(value, dict) and node.kind == "fields":
        return [(f"f:{k}", v, node.child(k)) for k, v in value.items()]
    if isinstance(value, list) and node.kind in ("map", "set"):
        named = ((element(v, node), v) for v in value)
        return [(e, v, node.child("")) for e, v in named if e is not None]
    return []


def fields_of(obj: Obj, node: Node) -> FieldSet:
    """Every leaf of an object, but for what belongs to the server or to the object's identity."""
    meta = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in _SERVER_METADATA}
    body = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}
    found: set[Path] = set()
    _collect({**body, **({"metadata": meta} if meta else {})}, node, (), found)
    return frozenset(found - {()})


def _collect(value: Any, node: Node, path: Path, found: set[Path]) -> None:
    parts = children(value, node)
    if not parts or (path and path[-1][0] in "kv"):
        found.add(path)
    for name, child, child_node in parts:
        _collect(child, child_node, (*path, name), found)


def value_at(obj: Any, path: Path, node: Node) -> Any:
    """What is at a path; MISSING where nothing is."""
    for name in path:
        step = next((p for p in children(obj, node) if p[0] == name), None)
        if step is None:
            return MISSING
        _, obj, node = step
    return obj


def to_fields_v1(fields: FieldSet) -> Obj:
    """The nested form."""
    root: Obj = {}
    for path in sorted(fields):
        at = root
        for name in path:
            at = at.setdefault(name, {})
        if path[-1][0] in "kv":
            at.setdefault(".", {})
    return _tidy(root)


def _tidy(node: Obj) -> Obj:
    """An element that is alone needs no dot."""
    if list(node) == ["."]:
        return {}
    return {k: _tidy(v) for k, v in node.items()}


def from_fields_v1(nested: Any, path: Path = ()) -> FieldSet:
    """The set of a nested form; what is malformed is left out."""
    if not isinstance(nested, dict):
        return EMPTY
    if not nested:
        return frozenset((path,)) if path else EMPTY
    found: set[Path] = set()
    for name, child in nested.items():
        if name == ".":
            found.add(path)
        else:
            found |= from_fields_v1(child, (*path, name))
    return frozenset(found)


def readable(path: Path) -> str:
    """``.spec.template.spec.containers[name="a"].image``, as conflicts show it."""
    text = ""
    for name in path:
        if name.startswith("f:"):
            text += f".{name[2:]}"
        elif name.startswith("k:"):
            pairs = ",".join(f"{k}={compact(v)}" for k, v in json.loads(name[2:]).items())
            text += f"[{pairs}]"
        else:
            text += f"[={name[2:]}]"
    return text
