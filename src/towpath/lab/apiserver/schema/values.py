"""Validation of custom resources against OpenAPI v3 schemas, worded as upstream (go-openapi/validate)."""

import math
import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_interface
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation.field import duplicate, required, unsupported, wrong

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and float(v).is_integer(),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return next(
        (n for n in ("boolean", "string", "integer", "number", "array", "object") if _TYPES[n](value)), "null"
    )


@lru_cache(512)
def _pattern(text: str) -> re.Pattern[str] | None:
    """Go's RE2 syntax is a subset of Python's but for a few names; None where it does not compile."""
    try:
        return re.compile(text.replace("(?<", "(?P<") if "(?<" in text and "(?<=" not in text else text)
    except re.error:
        return None


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


_FORMATS: dict[str, Callable[[str], bool]] = {
    "ipv4": lambda t: ":" not in t and _parses(ip_address)(t),
    "ipv6": lambda t: ":" in t and _parses(ip_address)(t),
    "cidr": lambda t: "/" in t and _parses(ip_interface)(t),
    "date-time": _parses(datetime.fromisoformat),
    "uuid": _parses(UUID),
    "uri": lambda t: bool(urlsplit(t).scheme),
    "mac": lambda t: re.fullmatch(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", t) is not None,
}


def validate(value: Any, schema: Obj, path: str, old: Any = None) -> list[Cause]:
    """Everything wrong with a value. ``path`` is "" at the root; an unchanged value is not looked into."""
    if old is not None and value == old:
        return []  # ratcheting: what was valid once may stay
    if value is None:
        return [] if schema.get("nullable") else [_type_error(path, value, schema.get("type") or "object")]
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if not (isinstance(value, int | str) and not isinstance(value, bool)):
            return [_type_error(path, value, "integer or string")]
    elif kind in _TYPES and not _TYPES[kind](value):
        return [_type_error(path, value, kind)]
    causes = _enumerated(value, schema, path)
    if isinstance(value, str):
        causes += _string(value, schema, path)
    elif isinstance(value, dict):
        causes += _object(value, schema, path, old if isinstance(old, dict) else {})
    elif isinstance(value, list):
        causes += _array(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        causes += _number(value, schema, path)
    return causes + _combined(value, schema, path)


def _type_error(path: str, value: Any, kind: str) -> Cause:
    got = _type_name(value)
    return {
        "reason": "FieldValueTypeInvalid",
        "message": f'Invalid value: "{got}": {path} in body must be of type {kind}: "{got}"',
        "field": path,
    }


def _enumerated(value: Any, schema: Obj, path: str) -> list[Cause]:
    allowed = schema.get("enum")
    if allowed is None or value in allowed:
        return []
    return [unsupported(path, value, [str(a) for a in allowed])]


def _string(value: str, schema: Obj, path: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high = schema.get("minLength"), schema.get("maxLength")
    if low is not None and len(value) < low:
        causes.append(wrong(path, value, f"{path} in body should be at least {low} chars long"))
    if high is not None and len(value) > high:
        message = f"Too long: may not be more than {high} bytes"
        causes.append({"reason": "FieldValueTooLong", "message": message, "field": path})
    pattern = schema.get("pattern")
    if pattern and (compiled := _pattern(pattern)) and not compiled.search(value):
        causes.append(wrong(path, value, f"{path} in body should match '{pattern}'"))
    check = _FORMATS.get(schema.get("format") or "")
    if check and not check(value):
        causes.append(wrong(path, value, f'{path} in body must be of type {schema["format"]}: "{value}"'))
    return causes


def _number(value: float, schema: Obj, path: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if low is not None and (value <= low if schema.get("exclusiveMinimum") is True else value < low):
        word = "greater than" if schema.get("exclusiveMinimum") is True else "greater than or equal to"
        causes.append(wrong(path, value, f"{path} in body should be {word} {low}"))
    if high is not None and (value >= high if schema.get("exclusiveMaximum") is True else value > high):
        word = "less than" if schema.get("exclusiveMaximum") is True else "less than or equal to"
        causes.append(wrong(path, value, f"{path} in body should be {word} {high}"))
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        causes.append(wrong(path, value, f"{path} in body should be a multiple of {step}"))
    bits = {"int32": 31, "int64": 63}.get(schema.get("format") or "")
    if bits and not -(1 << bits) <= value < 1 << bits:
        causes.append(wrong(path, value, f"Checked value must be of type {schema['format']}"))
    return causes


def _object(value: Obj, schema: Obj, path: str, old: Obj) -> list[Cause]:
    def at(key: str) -> str:
        return f"{path}.{key}" if path else key

    causes = [required(at(k)) for k in schema.get("required") or () if k not in value]
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, element in value.items():
        child = properties.get(key, extra if isinstance(extra, dict) else None)
        if child is not None and not (path == "" and key in ("apiVersion", "kind", "metadata")):
            causes += validate(element, child, at(key), old.get(key))
    low, high = schema.get("minProperties"), schema.get("maxProperties")
    if low is not None and len(value) < low:
        causes.append(wrong(path, value, f"{path} in body should have at least {low} properties"))
    if high is not None and len(value) > high:
        causes.append(wrong(path, value, f"{path} in body should have at most {high} properties"))
    return causes


def _array(value: list[Any], schema: Obj, path: str) -> list[Cause]:
    causes: list[Cause] = []
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and len(value) < low:
        causes.append(wrong(path, len(value), f"{path} in body should have at least {low} items"))
    if high is not None and len(value) > high:
        message = f"Too many: {len(value)}: must have at most {high} items"
        causes.append({"reason": "FieldValueTooMany", "message": message, "field": path})
    items = schema.get("items")
    if isinstance(items, dict):
        for i, element in enumerate(value):
            causes += validate(element, items, f"{path}[{i}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind in ("set", "map") or schema.get("uniqueItems"):
        keys = schema.get("x-kubernetes-list-map-keys") or []
        seen: list[Any] = []
        for i, element in enumerate(value):
            ident = (
                {k: element.get(k) for k in keys} if kind == "map" and isinstance(element, dict) else element
            )
            if ident in seen:
                causes.append(duplicate(f"{path}[{i}]", ident))
            seen.append(ident)
    return causes


def _combined(value: Any, schema: Obj, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for part in schema.get("allOf") or ():
        causes += validate(value, part, path)
    either = schema.get("anyOf")
    if (
        either
        and not schema.get("x-kubernetes-int-or-string")
        and all(validate(value, s, path) for s in either)
    ):
        causes.append(wrong(path, value, f"{path} in body must validate at least one schema (anyOf)"))
    one = schema.get("oneOf")
    if one and sum(not validate(value, s, path) for s in one) != 1:
        causes.append(wrong(path, value, f"{path} in body must validate one and only one schema (oneOf)"))
    if schema.get("not") and not validate(value, schema["not"], path):
        causes.append(wrong(path, value, f"{path} in body must not validate the schema (not)"))
    return causes
