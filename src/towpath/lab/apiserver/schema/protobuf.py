"""Request bodies in Kubernetes' protobuf, which kubectl's typed commands send from 1.33 on.

The envelope is ``k8s\\0`` and a ``runtime.Unknown``; types and numbers are those of ``types.txt``. Go writes
every field that is no pointer, empty or not, where its JSON leaves empty ones out: so do we. Answers are
always JSON, which every client accepts.
"""

import base64
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from towpath.api.protobuf import Malformed, octets, text, wire_fields
from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.schema.types import Field, types

MAGIC = b"k8s\x00"
# numbers and booleans that are pointers in Go, for which zero says something
POINTERS = frozenset(
    ("activeDeadlineSeconds", "allowPrivilegeEscalation", "automountServiceAccountToken", "backoffLimit",
     "blockOwnerDeletion", "completions", "controller", "defaultMode", "enableServiceLinks",
     "expirationSeconds", "failedJobsHistoryLimit", "fsGroup", "gracePeriodSeconds", "hostUsers", "immutable",
     "mode", "optional", "orphanDependents", "parallelism", "partition", "privileged",
     "progressDeadlineSeconds", "publishNotReadyAddresses", "readOnlyRootFilesystem", "replicas",
     "revisionHistoryLimit", "runAsGroup", "runAsNonRoot", "runAsUser", "successfulJobsHistoryLimit",
     "suspend", "terminationGracePeriodSeconds", "tolerationSeconds", "ttlSecondsAfterFinished")
)  # fmt: skip
_ALWAYS = frozenset(("value", "revision"))  # zero is written in JSON too


def _signed(value: Any) -> int:
    if not isinstance(value, int):
        raise Malformed("a number is no varint")
    return value - (1 << 64) if value >> 63 else value


def _numbered(value: Any) -> dict[int, Any]:
    return dict(wire_fields(value))


def _time(value: Any, digits: int) -> str | None:
    parts = _numbered(value)
    seconds, nanos = _signed(parts.get(1, 0)), _signed(parts.get(2, 0))
    if not parts or seconds <= -62135596800:  # Go's zero time
        return None
    fraction = f".{nanos // 1000:06d}" if digits else ""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"
    except (OverflowError, ValueError) as e:
        raise Malformed(f"time {seconds} is out of range") from e


def _int_or_string(value: Any) -> int | str:
    parts = _numbered(value)
    return text(parts.get(3, b"")) if parts.get(1) else _signed(parts.get(2, 0))


def _raw(value: Any) -> Any:
    body = _numbered(value).get(1)
    try:
        return msgspec.json.decode(octets(body)) if body else None
    except msgspec.DecodeError as e:
        raise Malformed(f"embedded JSON: {e}") from e


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "str": text,
    "bool": lambda v: bool(_signed(v)),
    "int": _signed,
    "long": _signed,
    "bytes": lambda v: base64.b64encode(octets(v)).decode(),
    "time": lambda v: _time(v, 0),
    "micro": lambda v: _time(v, 6),
    "quantity": lambda v: text(_numbered(v).get(1, b"")),
    "intstr": _int_or_string,
    "any": _raw,
}


def _one(field: Field, value: Any) -> Any:
    if field.scalar:
        return _SCALARS[field.type](value)
    return decode_message(field.type, value)


def _value(field: Field, value: Any) -> Any:
    if field.inner:
        return [_one(field, v) for _, v in wire_fields(value)]
    return _one(field, value)


@cache
def _by_number(type_name: str) -> tuple[dict[int, Field], dict[int, dict[int, Field]]]:
    """Own fields, and those of inlined messages."""
    own: dict[int, Field] = {}
    inlined: dict[int, dict[int, Field]] = {}
    for field in types()[type_name].fields.values():
        (inlined.setdefault(field.wrap, {}) if field.wrap else own)[field.number] = field
    return own, inlined


def _empty(field: Field, value: Any) -> bool:
    if value is None or value == "" or (value == {} and field.name in ("metadata", "status", "resources")):
        return True
    return (
        value in (0, False)
        and field.name not in POINTERS
        and field.name not in _ALWAYS
        and field.type != "intstr"
    )


def decode_message(type_name: str, data: Any) -> Obj:
    """The JSON form of a message. Raises Malformed."""
    if not isinstance(data, memoryview):
        raise Malformed(f"{type_name} is no message")
    own, inlined = _by_number(type_name)
    found: Obj = {}
    for number, value in wire_fields(data):
        if number in inlined:
            for inner, inner_value in wire_fields(value):
                if field := inlined[number].get(inner):
                    _add(found, field, inner_value)
        elif field := own.get(number):
            _add(found, field, value)
    return found


def _add(found: Obj, field: Field, value: Any) -> None:
    if field.shape == "[]":
        found.setdefault(field.name, []).append(_value(field, value))
    elif field.shape == "{}":
        entry = _numbered(value)
        made = _value(field, entry.get(2, memoryview(b"")))
        found.setdefault(field.name, {})[text(entry.get(1, b""))] = made
    elif not _empty(field, made := _value(field, value)):
        found[field.name] = made


def decode_body(body: bytes, kinds: dict[tuple[str, str], str]) -> Obj:
    """An object of one of ``kinds`` (apiVersion, kind: type). Raises Malformed, also for an unknown kind."""
    if not body.startswith(MAGIC):
        raise Malformed("the body lacks the k8s envelope")
    envelope = _numbered(memoryview(body)[len(MAGIC) :])
    meta = _numbered(envelope.get(1, memoryview(b"")))
    api_version, kind = text(meta.get(1, b"")), text(meta.get(2, b""))
    name = kinds.get((api_version, kind)) or kinds.get(("", kind))
    if name is None:
        raise Malformed(f"{api_version} {kind} is not decoded from protobuf")
    return {"apiVersion": api_version, "kind": kind, **decode_message(name, envelope.get(2, memoryview(b"")))}
