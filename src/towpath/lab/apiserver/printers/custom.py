"""Printers of custom resources: ``additionalPrinterColumns`` with their JSONPaths."""

import re
from collections.abc import Callable
from typing import Any

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.printers.table import Printer, age, column, since

Path = Callable[[Any], list[Any]]
_STEP = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\]|\\.)+)|\[(?P<index>-?\d+)\]|\[(?P<all>\*)\]|\['(?P<quoted>[^']*)'\]"""
    r"""|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


def json_path(text: str) -> Path:
    """A reader of ``.a[0]``, ``.a[*].b``, ``.c[?(@.type=="x")].d`` and the like. Raises ValueError."""
    steps: list[Path] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"unsupported JSONPath {text!r} at {text[at:]!r}")
        steps.append(_step(match))
        at = match.end()

    def read(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [x for v in found for x in step(v)]
        return found

    return read


def _step(match: re.Match[str]) -> Path:
    if match["index"] is not None:
        number = int(match["index"])
        return lambda v: v[number : number + 1 or None] if isinstance(v, list) else []
    if match["all"]:
        return lambda v: list(v) if isinstance(v, list) else list(v.values()) if isinstance(v, dict) else []
    if match["key"]:
        inner, wanted = json_path("." + match["key"]), match["value"]
        return lambda v: (
            [e for e in v if [str(x) for x in inner(e)] == [wanted]] if isinstance(v, list) else []
        )
    name = match["quoted"] if match["quoted"] is not None else re.sub(r"\\(.)", r"\1", match["name"])
    return lambda v: [v[name]] if isinstance(v, dict) and name in v else []


def _cell(found: list[Any], kind: str, now: float) -> Any:
    if not found:
        return "<unknown>" if kind == "date" else None
    value = found[0] if len(found) == 1 else ",".join(map(str, found))
    if kind == "date":
        return since(str(value), now)
    if kind in ("integer", "number", "boolean") and isinstance(value, int | float):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value)


def custom_printer(declared: list[Obj] | None) -> Printer:
    """Name, then the declared columns, or Age where none are declared. Raises ValueError."""
    shown = [column("Name", fmt="name")]
    if not declared:
        return Printer([*shown, column("Age", "date")], lambda o, now: [o["metadata"]["name"], age(o, now)])
    readers = [(json_path(c["jsonPath"]), c["type"]) for c in declared]
    for c in declared:
        fmt, text = c.get("format") or "", c.get("description") or ""
        shown.append(column(c["name"], c["type"], c.get("priority") or 0, fmt, text))

    def cells(obj: Obj, now: float) -> list[Any]:
        return [obj["metadata"]["name"], *(_cell(read(obj), kind, now) for read, kind in readers)]

    return Printer(shown, cells)
