"""Structural schemas of custom resources: pruning and defaults. Pure; values change in place."""

import copy
from typing import Any

from towpath.lab.apiserver.errors import Obj

ROOT = ("apiVersion", "kind", "metadata")
PRESERVE = "x-kubernetes-preserve-unknown-fields"


def prune(value: Any, schema: Obj, root: bool = False, path: str = "") -> list[str]:
    """Drops what the schema does not know; the paths of what was dropped."""
    dropped: list[str] = []
    if isinstance(value, dict):
        _prune_object(
            value, schema, root or bool(schema.get("x-kubernetes-embedded-resource")), path, dropped
        )
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, element in enumerate(value):
            dropped += prune(element, schema["items"], path=f"{path}[{i}]")
    return dropped


def _prune_object(value: Obj, schema: Obj, root: bool, path: str, dropped: list[str]) -> None:
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for key in list(value):
        at = f"{path}.{key}" if path else key
        if root and key in ROOT:
            continue
        if key in properties:
            if value[key] is None and not properties[key].get("nullable") and "default" in properties[key]:
                del value[key]  # a null is replaced by the default
            else:
                dropped += prune(value[key], properties[key], path=at)
        elif isinstance(extra, dict):
            dropped += prune(value[key], extra, path=at)
        elif extra is not True and not schema.get(PRESERVE):
            del value[key]
            dropped.append(at)


def default(value: Any, schema: Obj) -> None:
    """Fills in the schema's defaults, outermost first."""
    if isinstance(value, dict):
        for key, child in (schema.get("properties") or {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value:
                default(value[key], child)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key, element in value.items():
                if key not in (schema.get("properties") or {}):
                    default(element, extra)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for element in value:
            default(element, schema["items"])
