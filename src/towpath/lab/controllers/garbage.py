"""Which objects must go because their owners did: the graph of ownership and what follows from it. Pure.

Semantics are upstream's (kubernetes/pkg/controller/garbagecollector): background by default, foreground and
orphan by the finalizers the API server sets on the deleted owner.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

from towpath.lab.controllers.actions import Action, Delete, Patch
from towpath.lab.controllers.objects_meta import Meta, OwnerReference
from towpath.lab.controllers.ownership import reference_body
from towpath.lab.controllers.resources import Resource

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_REMEMBERED = 20_000


class Entry(msgspec.Struct, frozen=True):
    """One object of the graph."""

    resource: Resource[Any]
    meta: Meta

    @property
    def waits_for_dependents(self) -> bool:
        """Deleted in the foreground: it goes last."""
        return self.meta.deleting and FOREGROUND in (self.meta.finalizers or ())

    @property
    def orphans_dependents(self) -> bool:
        """Deleted without its dependents."""
        return self.meta.deleting and ORPHAN in (self.meta.finalizers or ())


class Graph:
    """Objects by uid, their dependents, and the uids known to be gone."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._dependents: dict[str, set[str]] = {}
        self._by_namespace: dict[str, set[str]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def get(self, uid: str) -> Entry | None:
        """The object, if it exists."""
        return self._entries.get(uid)

    def put(self, resource: Resource[Any], meta: Meta) -> set[str]:
        """An object came or changed. Answers the uids whose fate may be another now."""
        before = self._entries.get(meta.uid)
        self._entries[meta.uid] = Entry(resource, meta)
        self._by_namespace.setdefault(meta.namespace, set()).add(meta.uid)
        if before is not None and _fate(before.meta) == _fate(meta):
            return set()
        lost = _owner_uids(before.meta) - _owner_uids(meta) if before else set()
        for owner in lost:
            self._dependents.get(owner, set()).discard(meta.uid)
        for owner in _owner_uids(meta):
            self._dependents.setdefault(owner, set()).add(meta.uid)
        touched = {meta.uid} if meta.owner_references or meta.finalizers else set()
        entry = self._entries[meta.uid]
        if entry.waits_for_dependents or entry.orphans_dependents:
            touched |= self._dependents.get(meta.uid, set())
        return touched | {o for o in lost if o in self._entries}

    def drop(self, meta: Meta) -> set[str]:
        """An object is gone. Answers the uids whose fate may be another now."""
        entry = self._entries.pop(meta.uid, None)
        self._by_namespace.get(meta.namespace, set()).discard(meta.uid)
        self.forget(meta.uid)
        owners = _owner_uids(entry.meta if entry else meta)
        for owner in owners:
            self._dependents.get(owner, set()).discard(meta.uid)
        return self._dependents.pop(meta.uid, set()) | {o for o in owners if o in self._entries}

    def forget(self, uid: str) -> None:
        """That object is known to be gone."""
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def dependents(self, uid: str) -> list[Entry]:
        """What names the object as an owner."""
        found = (self._entries.get(d) for d in self._dependents.get(uid, ()))
        return [e for e in found if e is not None]

    def of_namespace(self, namespace: str) -> list[Entry]:
        """All objects in a namespace."""
        return [self._entries[u] for u in self._by_namespace.get(namespace, ())]

    def unresolved(self, uid: str) -> list[OwnerReference]:
        """Owners of the object of which the graph knows neither that they exist nor that they are gone."""
        entry = self._entries.get(uid)
        references = entry.meta.owner_references or () if entry else ()
        return [r for r in references if r.uid not in self._entries and r.uid not in self._gone]

    def absent(self, reference: OwnerReference, namespace: str) -> bool:
        """The owner is gone, or is no possible owner of an object in ``namespace``."""
        owner = self._entries.get(reference.uid)
        if owner is None:
            return reference.uid in self._gone
        return owner.meta.namespace not in ("", namespace)


def _fate(meta: Meta) -> object:
    return meta.owner_references, meta.finalizers, meta.deleting


def _owner_uids(meta: Meta) -> set[str]:
    return {r.uid for r in meta.owner_references or ()}


def garbage(graph: Graph, uid: str) -> list[Action]:
    """What to do about one object, all of whose owners are resolved."""
    entry = graph.get(uid)
    if entry is None:
        return []
    if entry.orphans_dependents:
        freed = [_disown(d, {uid}) for d in graph.dependents(uid)]
        return [*freed] if freed else [_release(entry, ORPHAN)]
    if entry.waits_for_dependents:
        return _foreground(graph, entry)
    if entry.meta.deleting or not entry.meta.owner_references:
        return []
    return _judge(graph, entry)


def _foreground(graph: Graph, entry: Entry) -> list[Action]:
    """Delete the dependents; the owner is let go once none of them blocks it."""
    dependents = graph.dependents(entry.meta.uid)
    blocking = [d for d in dependents if _blocks(d.meta, entry.meta.uid)]
    if not blocking:
        return [_release(entry, FOREGROUND)]
    return []


def _blocks(meta: Meta, owner: str) -> bool:
    return any(r.uid == owner and r.block_owner_deletion for r in meta.owner_references or ())


def _judge(graph: Graph, entry: Entry) -> list[Action]:
    meta = entry.meta
    solid, leaving, waited = 0, set(), False
    for reference in meta.owner_references or ():
        owner = graph.get(reference.uid)
        if graph.absent(reference, meta.namespace):
            leaving.add(reference.uid)
        elif owner is not None and owner.waits_for_dependents:
            leaving.add(reference.uid)
            waited = True
        else:
            solid += 1
    if solid:
        return [_disown(entry, leaving)] if leaving else []
    if waited and graph.dependents(meta.uid):
        circle = any(d.waits_for_dependents for d in graph.dependents(meta.uid))
        return [_delete(entry, "Background" if circle else "Foreground")]
    return [_delete(entry, "Background")]


def _delete(entry: Entry, propagation: str) -> Action:
    meta = entry.meta
    return Delete(entry.resource, meta.namespace, meta.name, meta.uid, propagation=propagation)


def _disown(entry: Entry, owners: Iterable[str]) -> Action:
    kept = [r for r in entry.meta.owner_references or () if r.uid not in set(owners)]
    return _meta_patch(entry, {"ownerReferences": [reference_body(r) for r in kept] or None})


def _release(entry: Entry, finalizer: str) -> Action:
    kept = [f for f in entry.meta.finalizers or () if f != finalizer]
    return _meta_patch(entry, {"finalizers": kept or None})


def _meta_patch(entry: Entry, change: dict[str, Any]) -> Action:
    meta = entry.meta
    body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, **change}}
    return Patch(entry.resource, meta.namespace, meta.name, body)
