"""Causes of ``Invalid``, worded as k8s.io/apimachinery's field.Error."""

from typing import Any

from towpath.lab.apiserver.errors import Cause
from towpath.lab.apiserver.store import encode


def shown(value: Any) -> str:
    """A bad value as messages quote it."""
    if isinstance(value, str):
        return f'"{value}"'
    return encode(value).decode()


def wrong(field: str, value: Any, why: str) -> Cause:
    """FieldValueInvalid."""
    return {"reason": "FieldValueInvalid", "message": f"Invalid value: {shown(value)}: {why}", "field": field}


def required(field: str, why: str = "") -> Cause:
    """FieldValueRequired."""
    return {
        "reason": "FieldValueRequired",
        "message": "Required value" + (f": {why}" if why else ""),
        "field": field,
    }


def unsupported(field: str, value: Any, known: list[str]) -> Cause:
    """FieldValueNotSupported."""
    listed = ", ".join(f'"{k}"' for k in sorted(known))
    message = f"Unsupported value: {shown(value)}: supported values: {listed}"
    return {"reason": "FieldValueNotSupported", "message": message, "field": field}


def duplicate(field: str, value: Any) -> Cause:
    """FieldValueDuplicate."""
    return {"reason": "FieldValueDuplicate", "message": f"Duplicate value: {shown(value)}", "field": field}


def not_allowed(field: str, why: str) -> Cause:
    """FieldValueForbidden."""
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {why}", "field": field}


def not_found_value(field: str, value: Any) -> Cause:
    """FieldValueNotFound."""
    return {"reason": "FieldValueNotFound", "message": f"Not found: {shown(value)}", "field": field}


IMMUTABLE = "field is immutable"


def immutable(field: str, new: Any, old: Any, why: str = IMMUTABLE) -> list[Cause]:
    """A cause when the two differ."""
    return [] if new == old else [wrong(field, new, why)]
