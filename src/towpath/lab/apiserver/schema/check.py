"""Decodes an object as its type says: unknown fields are dropped and named, wrong types refused.

Nulls are dropped, as Go's decoder leaves such fields unset, and empty lists and maps, as Go leaves them out
again. The check walks every object that is written, so that paths are put together only where there is
something to tell.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from towpath.lab.apiserver.errors import ApiError, Obj, Unmarshalled, bad_request
from towpath.lab.apiserver.schema.types import Field, types

Check = Callable[[Any], list[str] | None]  # unknown fields, relative to the value; None when there are none
INT32 = 1 << 31


class Mismatch(Exception):
    """A value of the wrong type; the path is put in front on the way out."""

    def __init__(self, got: str, want: str) -> None:
        super().__init__(got)
        self.got, self.want, self.path, self.owner = got, want, "", ""


def _json_name(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return f"number {value}" if isinstance(value, float) else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


_GO = {
    "str": "string", "bool": "bool", "int": "int32", "long": "int64", "float": "float64", "bytes": "[]uint8",
    "time": "v1.Time", "micro": "v1.MicroTime", "quantity": "resource.Quantity",
    "intstr": "intstr.IntOrString",
}  # fmt: skip
_PYTHON: dict[str, tuple[type, ...]] = {
    "str": (str,), "bool": (bool,), "int": (int,), "long": (int,), "float": (int, float), "bytes": (str,),
    "time": (str,), "micro": (str,), "quantity": (str, int, float), "intstr": (str, int),
}  # fmt: skip


_ZERO = {"string": "", "[]uint8": "", "resource.Quantity": "0", "any": None, "v1.Time": None}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _time(value: Any) -> list[str] | None:
    if type(value) is not str or not _TIME.fullmatch(value):
        raise Mismatch(f"{_json_name(value)} {value!r}", "v1.Time")
    return None


def _scalar(name: str) -> Check | None:
    if name == "any":
        return None
    if name in ("time", "micro"):
        return _time
    accepted, small = _PYTHON[name], name == "int"

    def check(value: Any) -> list[str] | None:
        if type(value) not in accepted:
            raise Mismatch(_json_name(value), _GO[name])
        if small and not -INT32 <= value < INT32:
            raise Mismatch(f"number {value}", "int32")
        return None

    return check


def _list(item: Check | None, go: str) -> Check:
    def check(value: Any) -> list[str] | None:
        if type(value) is not list:
            raise Mismatch(_json_name(value), f"[]{go}")
        if item is None:
            return None
        bad: list[str] | None = None
        for i, element in enumerate(value):
            if element is None:
                value[i] = element = _ZERO.get(go, {})
            if (found := item(element)) is not None:
                bad = [*(bad or ()), *(f"[{i}]{x}" for x in found)]
        return bad

    return check


def _map(item: Check | None, go: str) -> Check:
    def check(value: Any) -> list[str] | None:
        if type(value) is not dict:
            raise Mismatch(_json_name(value), f"map[string]{go}")
        bad: list[str] | None = None
        for key, element in value.items():
            if element is None:
                value[key] = _ZERO.get(go, [] if go.startswith("[") else {})
            elif go == "resource.Quantity" and type(element) in (int, float):
                value[key] = str(element)
            elif item is not None and (found := item(element)) is not None:
                bad = [*(bad or ()), *(f".{key}{x}" for x in found)]
        return bad

    return check


def _checker(field: Field) -> Check | None:
    if field.scalar:
        item, go = _scalar(field.type), _GO.get(field.type, "any")
    else:
        item, go = _Lazy(field.type), field.type.rpartition(".")[2]
    if field.inner:
        item, go = _list(item, go), f"[]{go}"
    if field.shape == "[]":
        return _list(item, go)
    return _map(item, go) if field.shape == "{}" else item


# lists that Go writes although they are empty; all others are left out (omitempty)
_EMPTY_KEPT = frozenset(
    (
        ("apiextensions.CustomResourceDefinitionStatus", "conditions"),
        ("apiextensions.CustomResourceDefinitionStatus", "storedVersions"),
        ("core.ContainerImage", "names"),
        ("core.LimitRangeSpec", "limits"),
        ("discovery.EndpointSlice", "ports"),
        ("rbac.ClusterRole", "rules"),
        ("rbac.Role", "rules"),
    )
)


class _Lazy:
    """Checks as another type, compiled when first used: types may contain themselves."""

    __slots__ = ("_check", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._check: Check | None = None

    def __call__(self, value: Any) -> list[str] | None:
        if self._check is None:
            self._check = checker(self._name)
        return self._check(value)


@cache
def checker(name: str) -> Check:
    """The check of a builtin type; removes nulls, unknown fields and empty lists from the value in place."""
    declared = types()[name]
    checks = {f.name: _checker(f) for f in declared.fields.values()}
    if "metadata" in checks and checks["metadata"] is not None:
        checks["apiVersion"] = checks["kind"] = _scalar("str")
    short = declared.short
    omitted = frozenset(
        f.name
        for f in declared.fields.values()
        if f.shape and not f.required and (name, f.name) not in _EMPTY_KEPT
    )

    def check(value: Any) -> list[str] | None:
        if type(value) is not dict:
            raise Mismatch(_json_name(value), short)
        bad: list[str] | None = None
        drop: list[str] | None = None
        for key, element in value.items():
            if element is None:
                drop = [*(drop or ()), key]
            elif key not in checks:
                drop = [*(drop or ()), key]
                bad = [*(bad or ()), f".{key}"]
            elif (inner := checks[key]) is not None:
                try:
                    found = inner(element)
                except Mismatch as e:
                    e.path = f".{key}{e.path}"
                    e.owner = e.owner or short
                    raise
                if found is not None:
                    bad = [*(bad or ()), *(f".{key}{x}" for x in found)]
                if not element and key in omitted:
                    drop = [*(drop or ()), key]
        for key in drop or ():
            del value[key]
        return bad

    return check


def decode_check(type_name: str, api_version: str, obj: Obj) -> list[str]:
    """Prunes ``obj`` in place and gives the paths of unknown fields. Raises ApiError 400 on a wrong type."""
    try:
        found = checker(type_name)(obj)
    except Mismatch as e:
        kind, version = obj.get("kind", type_name.rpartition(".")[2]), api_version.rpartition("/")[2]
        raise Unmarshalled(
            f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot unmarshal {e.got} '
            f"into Go struct field {e.owner}{e.path} of type {e.want}"
        ) from e
    return [path.lstrip(".") for path in found or ()]


def strict_error(kind: str, api_version: str, paths: list[str]) -> ApiError:
    """400 for unknown fields under ``fieldValidation=Strict``."""
    shown = ", ".join(f'unknown field "{p}"' for p in paths)
    version = api_version.rpartition("/")[2]
    return bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {shown}'
    )
