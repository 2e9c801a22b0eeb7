"""How each part of an object merges in server-side apply: one view over builtin types and custom schemas."""

from collections.abc import Callable
from typing import Any, NamedTuple

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.schema.types import ATOMIC, KEY_DEFAULTS, Field, types

# maps that have one owner although their values are plain (x-kubernetes-map-type: atomic)
_ATOMIC_MAPS = {("core.ServiceSpec", "selector"), ("core.PodSpec", "nodeSelector")}


class Node(NamedTuple):
    """``kind``: fields (merged by name), map (list by keys), set, atomic. ``child`` of a field or a list.

    ``keys`` identify list elements; ``defaults`` are those keys' values where an element leaves them out.
    """

    kind: str
    child: "Callable[[str], Node]"
    keys: tuple[str, ...] = ()
    defaults: Obj = {}  # noqa: RUF012 - never changed


def _unknown(name: str) -> Node:
    return ANY


ANY = Node("fields", _unknown)  # without a schema: objects merge, lists are replaced
LEAF = Node("atomic", _unknown)


def builtin_node(type_name: str) -> Node:
    """The node of a builtin type."""
    declared = types().get(type_name)
    if declared is None:
        return ANY
    if declared.short in ATOMIC:
        return LEAF
    return Node("fields", lambda name: _field_node(type_name, declared.fields.get(name)))


def _field_node(owner: str, field: Field | None) -> Node:
    if field is None or (owner, field.name) in _ATOMIC_MAPS:
        return LEAF
    one = LEAF if field.scalar else builtin_node(field.type)
    if field.shape == "":
        return one
    if field.shape == "{}":
        return Node("fields", lambda _: LEAF if field.inner else one)
    if field.keys is None:
        return LEAF
    if not field.keys:
        return Node("set", lambda _: LEAF)
    defaults = {k: KEY_DEFAULTS[k] for k in field.keys if k in KEY_DEFAULTS}
    return Node("map", lambda _: one, field.keys, defaults)


def custom_node(schema: Obj | None, root: bool = True) -> Node:
    """The node of a custom resource's schema."""
    if not schema:
        return ANY

    def child(name: str) -> Node:
        if root and name == "metadata":
            return builtin_node("meta.ObjectMeta")
        found: Any = (schema.get("properties") or {}).get(name)
        if found is None:
            found = schema.get("additionalProperties")
        return custom_node(found, False) if isinstance(found, dict) else ANY

    if schema.get("type") == "array":
        kind, items = schema.get("x-kubernetes-list-type"), schema.get("items") or {}
        if kind == "map":
            keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
            properties = items.get("properties") or {}
            defaults = {k: properties[k]["default"] for k in keys if "default" in (properties.get(k) or {})}
            return Node("map", lambda _: custom_node(items, False), keys, defaults)
        return Node("set", lambda _: LEAF) if kind == "set" else LEAF
    if schema.get("x-kubernetes-map-type") == "atomic":
        return LEAF
    return Node("fields", child)
