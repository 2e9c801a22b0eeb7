"""ControllerRevisions: the pod templates a DaemonSet or StatefulSet has had, for rollout and undo. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from towpath.lab.controllers.actions import Action, Create, Delete, Patch
from towpath.lab.controllers.hashing import content_hash, prune, with_labels
from towpath.lab.controllers.objects_apps import ControllerRevision
from towpath.lab.controllers.objects_meta import Body, Meta
from towpath.lab.controllers.ownership import controller_reference
from towpath.lab.controllers.resources import CONTROLLER_REVISIONS, Resource

REVISION_HASH = "controller-revision-hash"


class History(msgspec.Struct, frozen=True):
    """``current`` is the revision of the present template, None until it is written; ``old`` by age.

    ``hash`` is what pods of the present template carry as ``controller-revision-hash``.
    """

    hash: str
    current: ControllerRevision | None
    old: tuple[ControllerRevision, ...]
    actions: tuple[Action, ...]


def template_patch(template: Body) -> Body:
    """A revision's data: the patch that ``kubectl rollout undo`` sends to bring the template back."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: ControllerRevision) -> Body:
    """The pod template a revision keeps."""
    kept: Body = (revision.data.get("spec") or {}).get("template") or {}
    return {k: v for k, v in kept.items() if k != "$patch"}


def history(
    resource: Resource[Any],
    owner: Meta,
    template: Body,
    collisions: int | None,
    owned: Sequence[ControllerRevision],
    names: Iterable[str],
) -> History:
    """Find, number or create the revision of ``template``. ``names`` of all revisions of the namespace."""
    data = template_patch(template)
    ordered = sorted(owned, key=lambda r: (r.revision, r.metadata.name))
    same = [r for r in ordered if prune(r.data) == prune(data)]
    current = same[-1] if same else None
    old = tuple(r for r in ordered if r is not current)
    top = max((r.revision for r in old), default=0)
    if current is not None:
        actions: list[Action] = []
        if current.revision <= top:
            number: Body = {"revision": top + 1}
            meta = current.metadata
            actions.append(Patch(CONTROLLER_REVISIONS, meta.namespace, meta.name, number))
        label = current.metadata.label(REVISION_HASH) or current.metadata.name.rpartition("-")[2]
        return History(label, current, old, tuple(actions))
    attempt, taken = collisions or 0, set(names)
    digest = content_hash([prune(template), attempt])
    while f"{owner.name}-{digest}" in taken:
        attempt += 1
        digest = content_hash([prune(template), attempt])
    meta_body: Body = {
        "name": f"{owner.name}-{digest}",
        "labels": with_labels(template, {REVISION_HASH: digest})["metadata"]["labels"],
        "annotations": _cause(owner),
        "ownerReferences": [controller_reference(resource, owner)],
    }
    body = {"metadata": meta_body, "data": data, "revision": top + 1}
    return History(digest, None, old, (Create(CONTROLLER_REVISIONS, owner.namespace, body),))


def _cause(owner: Meta) -> dict[str, str]:
    hidden = "kubectl.kubernetes.io/last-applied-configuration"
    return {k: v for k, v in (owner.annotations or {}).items() if k != hidden}


def surplus(found: History, limit: int | None, in_use: frozenset[str]) -> list[Action]:
    """Deletions of the oldest revisions beyond ``limit`` (10 if not given).

    Those ``in_use``, by name or hash, neither go nor count.
    """
    limit = 10 if limit is None else limit
    idle = [
        r
        for r in found.old
        if not {r.metadata.name, r.metadata.label(REVISION_HASH)} & in_use and not r.metadata.deleting
    ]
    extra = max(0, len(idle) - limit)
    return [
        Delete(CONTROLLER_REVISIONS, r.metadata.namespace, r.metadata.name, r.metadata.uid)
        for r in idle[:extra]
    ]
