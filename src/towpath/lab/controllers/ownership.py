"""Who manages whom: controller references, adoption of orphans, release of what no longer matches. Pure."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from towpath.lab.controllers.actions import Patch
from towpath.lab.controllers.objects_meta import Body, LabelSelector, Meta, OwnerReference
from towpath.lab.controllers.resources import Resource
from towpath.lab.controllers.selectors import matches


class HasMeta(Protocol):
    """Any object with metadata."""

    @property
    def metadata(self) -> Meta:
        """Its metadata."""
        ...


T = TypeVar("T", bound=HasMeta)


def controller_reference(resource: Resource[Any], owner: Meta) -> Body:
    """The owner reference a controller puts on what it makes."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claim(
    resource: Resource[Any], owner: Meta, selector: LabelSelector, owned: Resource[Any], objects: Iterable[T]
) -> tuple[list[T], list[Patch]]:
    """Those of ``objects`` (all of the owner's namespace) that are the owner's, and what makes it so.

    An orphan that matches is adopted (unless either is being deleted) and counts only once it says so
    itself; an owned object that no longer matches is released.
    """
    mine: list[T] = []
    patches: list[Patch] = []
    for item in objects:
        meta, holder = item.metadata, item.metadata.owner
        if holder is not None and holder.uid == owner.uid:
            if matches(selector, meta.labels):
                mine.append(item)
            elif not owner.deleting and not meta.deleting:
                others = [r for r in meta.owner_references or () if r.uid != owner.uid]
                patches.append(_own(owned, meta, [reference_body(r) for r in others]))
        elif holder is None and not owner.deleting and not meta.deleting and matches(selector, meta.labels):
            held = [reference_body(r) for r in meta.owner_references or ()]
            patches.append(_own(owned, meta, [*held, controller_reference(resource, owner)]))
    return mine, patches


def _own(resource: Resource[Any], meta: Meta, references: list[Body]) -> Patch:
    version = {"uid": meta.uid, "resourceVersion": meta.resource_version}
    return Patch(
        resource, meta.namespace, meta.name, {"metadata": {**version, "ownerReferences": references}}
    )


def reference_body(reference: OwnerReference) -> Body:
    """An owner reference as the API wants it."""
    kept: Body = msgspec.to_builtins(reference)
    return {k: v for k, v in kept.items() if v is not None}
