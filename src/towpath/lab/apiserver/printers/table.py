"""Printers of kinds: the columns of a Table and the cells of a row."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from towpath.lab.apiserver.errors import Obj

Cells = Callable[[Obj, float], list[Any]]


class Printer(NamedTuple):
    """``columns`` are metav1.TableColumnDefinition; ``cells`` fills a row at a time (seconds)."""

    columns: list[Obj]
    cells: Cells


def column(name: str, kind: str = "string", priority: int = 0, fmt: str = "", description: str = "") -> Obj:
    """A column definition; priority 1 shows with ``-o wide`` only."""
    return {"name": name, "type": kind, "format": fmt, "description": description, "priority": priority}


def columns(text: str) -> list[Obj]:
    """From ``Name Age +IP +Node``: + marks wide columns, _ is a space, :i an integer, :b a boolean."""
    made = []
    for word in text.split():
        name, _, mark = word.lstrip("+").partition(":")
        kind = {"i": "integer", "b": "boolean"}.get(mark, "string")
        made.append(
            column(
                name.replace("_", " "),
                kind,
                int(word.startswith("+")),
                "name" if name == "Name" else "",
            )
        )
    return made


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


def duration(seconds: float) -> str:
    """k8s.io/apimachinery's HumanDuration: two units at most."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    m, h, d = s // 60, s // 3600, s // 86400
    if m < 10:
        return f"{m}m{s % 60}s" if s % 60 else f"{m}m"
    if m < 180:
        return f"{m}m"
    if h < 8:
        return f"{h}h{m % 60}m" if m % 60 else f"{h}h"
    if h < 48:
        return f"{h}h"
    if h < 192:
        return f"{d}d{h % 24}h" if h % 24 else f"{d}d"
    if h < 24 * 365 * 2:
        return f"{d}d"
    if h < 24 * 365 * 8:
        return f"{d // 365}y{d % 365}d" if d % 365 else f"{d // 365}y"
    return f"{d // 365}y"


def age(obj: Obj, now: float) -> str:
    """Since the object's creation."""
    return since(obj["metadata"].get("creationTimestamp"), now)


def since(text: str | None, now: float) -> str:
    """Since a time; ``<unknown>`` where there is none."""
    if not text:
        return "<unknown>"
    try:
        return duration(now - parse_time(text))
    except ValueError:
        return "<invalid>"


def between(start: str, end: str | None, now: float) -> str:
    """From one time to another, or to now."""
    try:
        return duration((parse_time(end) if end else now) - parse_time(start))
    except ValueError:
        return "<invalid>"


DEFAULT = Printer(
    [column("Name", fmt="name"), column("Created At", "date")],
    lambda obj, now: [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp")],
)
