"""Server-side apply: merge what a manager wants, drop what it wants no more, refuse what others own. Pure."""

from typing import Any, NamedTuple

from towpath.lab.apiserver.errors import Obj
from towpath.lab.apiserver.patch.fieldsets import (
    EMPTY,
    MISSING,
    FieldSet,
    Path,
    children,
    element,
    fields_of,
    from_fields_v1,
    to_fields_v1,
    value_at,
)
from towpath.lab.apiserver.schema.nodes import Node


class Manager(NamedTuple):
    """Who owns fields: ``operation`` Apply or Update, of the main resource or a subresource."""

    name: str
    operation: str
    subresource: str = ""


Owned = dict[Manager, FieldSet]


class Conflicts(Exception):
    """Fields that others own with other values: pairs of manager and path."""

    def __init__(self, found: list[tuple[Manager, Path]]) -> None:
        super().__init__(str(found))
        self.found = found


def owned(entries: Any) -> Owned:
    """From ``metadata.managedFields``."""
    found: Owned = {}
    for e in entries if isinstance(entries, list) else ():
        if isinstance(e, dict) and e.get("manager"):
            manager = Manager(e["manager"], e.get("operation") or "Update", e.get("subresource") or "")
            found[manager] = found.get(manager, EMPTY) | from_fields_v1(e.get("fieldsV1"))
    return found


def entries(found: Owned, before: Any, api_version: str, now: str) -> list[Obj]:
    """``metadata.managedFields``; entries that did not change keep their time."""
    times = {}
    for e in before if isinstance(before, list) else ():
        key = Manager(e.get("manager", ""), e.get("operation", ""), e.get("subresource") or "")
        times[key] = (from_fields_v1(e.get("fieldsV1")), e)
    made: list[Obj] = []
    for manager, fields in found.items():
        if not fields:
            continue
        old = times.get(manager)
        if old and old[0] == fields:
            made.append(old[1])
            continue
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(fields),
        }
        made.append({**entry, "subresource": manager.subresource} if manager.subresource else entry)
    return made


def merge(live: Any, wanted: Any, node: Node) -> Any:
    """``wanted`` over ``live``; parts that stay are shared."""
    if isinstance(live, dict) and isinstance(wanted, dict) and node.kind == "fields":
        merged = dict(live)
        for key, value in wanted.items():
            merged[key] = merge(live[key], value, node.child(key)) if key in live else value
        return merged
    if isinstance(live, list) and isinstance(wanted, list) and node.kind in ("map", "set"):
        ours = {element(v, node): v for v in wanted}
        merged_list = []
        for item in live:
            name = element(item, node)
            if name is not None and name in ours:
                merged_list.append(merge(item, ours.pop(name), node.child("")))
            else:
                merged_list.append(item)
        return merged_list + list(ours.values())
    return wanted


def without(value: Any, gone: FieldSet, node: Node, path: Path = ()) -> Any:
    """``value`` less the paths in ``gone``; an object or list that loses all its parts goes as well."""
    if path in gone:
        return MISSING
    parts = children(value, node)
    if not parts:
        return value
    kept: list[tuple[str, Any, Any]] = []
    for name, child, child_node in parts:
        left = without(child, gone, child_node, (*path, name))
        if left is not MISSING:
            kept.append((name, child, left))
    if len(kept) == len(parts) and all(child is left for _, child, left in kept):
        return value
    if not kept and path:
        return MISSING
    if isinstance(value, dict):
        return {name[2:]: left for name, _, left in kept}
    return [left for _, _, left in kept]


def apply(live: Obj, wanted: Obj, node: Node, manager: Manager, force: bool) -> tuple[Obj, Owned]:
    """The new object and the new owners. Raises Conflicts."""
    owners = owned(live["metadata"].get("managedFields"))
    fields = fields_of(wanted, node)
    others = {m: f for m, f in owners.items() if m != manager}
    found = [
        (other, path)
        for other, theirs in others.items()
        for path in sorted(fields & theirs)
        if _differ(value_at(live, path, node), value_at(wanted, path, node), path)
    ]
    if found and not force:
        raise Conflicts(found)
    lost: dict[Manager, set[Path]] = {}
    for other, path in found:
        lost.setdefault(other, set()).add(path)
    others = {m: f - lost.get(m, set()) for m, f in others.items()}
    kept = frozenset[Path]().union(*others.values())
    gone = owners.get(manager, EMPTY) - fields - kept
    gone = frozenset(p for p in gone if not any(q[: len(p)] == p for q in kept | fields))
    pruned = without(live, gone, node)
    merged = merge(pruned if pruned is not MISSING else live, wanted, node)
    return merged, {**others, manager: fields}


def _differ(live: Any, wanted: Any, path: Path) -> bool:
    if path[-1][0] == "k":
        return False  # the element's existence; its fields are compared by themselves
    return bool(live is not MISSING and live != wanted)


def track(new: Obj, old: Obj, node: Node, manager: Manager) -> Owned:
    """Owners after a change that was no apply: who changed a field owns it, nobody else does."""
    owners = owned(old["metadata"].get("managedFields"))
    now, before = fields_of(new, node), fields_of(old, node)
    changed = frozenset(
        p for p in now if p not in before or _differ(value_at(old, p, node), value_at(new, p, node), p)
    )
    gone = before - now
    left = {m: (f - gone if m == manager else f - gone - changed) for m, f in owners.items()}
    mine = left.get(manager, EMPTY) | changed
    return {**left, manager: mine} if mine else left
