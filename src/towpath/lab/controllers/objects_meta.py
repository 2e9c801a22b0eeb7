"""Metadata, conditions and selectors as the controllers read them. Unknown fields are ignored.

Fuller than ``towpath.api``, which holds only what a node's agent needs of each object.
"""

import time
from datetime import datetime
from typing import Any

import msgspec

Body = dict[str, Any]


class OwnerReference(msgspec.Struct, frozen=True, rename="camel"):
    """``metav1.OwnerReference``."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """``metav1.ObjectMeta``."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    finalizers: list[str] | None = None

    @property
    def key(self) -> str:
        """``namespace/name``, or the bare name of a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def deleting(self) -> bool:
        """Deletion was asked for and waits for a grace period or finalizers."""
        return self.deletion_timestamp is not None

    @property
    def owner(self) -> OwnerReference | None:
        """The managing controller's reference, if there is one."""
        return next((r for r in self.owner_references or () if r.controller), None)

    def label(self, name: str) -> str | None:
        """One label, None where it is absent."""
        return (self.labels or {}).get(name)

    def annotation(self, name: str, default: str = "") -> str:
        """One annotation."""
        return (self.annotations or {}).get(name, default)


class Partial(msgspec.Struct, frozen=True, rename="camel"):
    """Any object, by its metadata alone (``metav1.PartialObjectMetadata``)."""

    metadata: Meta = Meta()


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """A status condition of any kind of object. Times are RFC 3339 text."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None
    last_update_time: str | None = None
    last_heartbeat_time: str | None = None


class Requirement(msgspec.Struct, frozen=True, rename="camel"):
    """``metav1.LabelSelectorRequirement`` and ``v1.NodeSelectorRequirement``."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(msgspec.Struct, frozen=True, rename="camel"):
    """``metav1.LabelSelector``."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


def parse_time(text: str | None) -> float:
    """RFC 3339 (with or without fractions) as seconds since 1970; 0.0 for none or nonsense."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0


def format_time(when: float) -> str:
    """``metav1.Time``: RFC 3339 in UTC, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
