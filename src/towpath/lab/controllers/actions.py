"""What a controller decided to write: values, so that decisions are pure and one place does the writing."""

from typing import Any

import msgspec

from towpath.lab.controllers.objects_meta import Body, Meta
from towpath.lab.controllers.resources import Resource


class Reference(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``v1.ObjectReference``: what an Event is about."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


class Emit(msgspec.Struct, frozen=True):
    """Record an Event. In ``message``, ``{name}`` stands for the name of the object just written."""

    regarding: Reference
    type: str
    reason: str
    message: str


class Create(msgspec.Struct, frozen=True):
    """Create an object, or POST to a ``subresource`` of ``name``; already there is no error.

    ``event`` is recorded on success, ``failure`` (``{error}`` in it is the reason) when it is refused.
    """

    resource: Resource[Any]
    namespace: str
    body: Body
    name: str = ""
    subresource: str = ""
    event: Emit | None = None
    failure: Emit | None = None


class Patch(msgspec.Struct, frozen=True):
    """A JSON merge patch; that the object is gone is no error.

    One that carries lists needs ``metadata.resourceVersion``: they replace what is there.
    """

    resource: Resource[Any]
    namespace: str
    name: str
    body: Body
    subresource: str = ""
    event: Emit | None = None


class Delete(msgspec.Struct, frozen=True):
    """Delete exactly the object with ``uid``; gone already, or replaced by another, is no error.

    ``grace`` seconds, None for the object's own; ``propagation`` Background, Foreground, Orphan or empty.
    """

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str
    grace: int | None = None
    propagation: str = ""
    event: Emit | None = None


Action = Create | Patch | Delete | Emit


class Plan(msgspec.Struct, frozen=True):
    """Actions in order (creations and deletions that follow one another may run at the same time).

    ``recheck`` seconds until time alone will have changed the answer, None if it will not.
    """

    actions: tuple[Action, ...] = ()
    recheck: float | None = None


def reference(resource: Resource[Any], meta: Meta) -> Reference:
    """A reference to the object for its events."""
    return Reference(resource.api_version, resource.kind, meta.name, meta.namespace, meta.uid)


def status_patch(resource: Resource[Any], meta: Meta, status: Body) -> Patch:
    """A write of the whole ``status``, refused when the object changed since it was read."""
    body = {"metadata": {"resourceVersion": meta.resource_version, "uid": meta.uid}, "status": status}
    return Patch(resource, meta.namespace, meta.name, body, "status")


def soonest(*delays: float | None) -> float | None:
    """The smallest of those that are given."""
    return min((d for d in delays if d is not None), default=None)
