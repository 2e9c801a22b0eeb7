"""An object that is a policy or a set, as the API knows it, with the findings about it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.model.finding import Finding
from towpath.policy.sources import Resource


class Read(msgspec.Struct, frozen=True):
    """``raw`` is the object as it was read. ``here``: findings that no other node has."""

    resource: Resource
    raw: Mapping[str, Any]
    findings: tuple[Finding, ...]
    here: tuple[Finding, ...] = ()

    def reference(self) -> dict[str, str]:
        """A ``v1.ObjectReference``; what is no text in the object is left out."""
        metadata = self.raw.get("metadata")
        told = metadata if isinstance(metadata, Mapping) else {}
        version = self.raw.get("apiVersion")
        named = isinstance(version, str) and version.startswith(f"{self.resource.group}/")
        found = {
            "apiVersion": version if named else f"{self.resource.group}/{self.resource.versions[0]}",
            "kind": self.resource.kind,
            "namespace": told.get("namespace"),
            "name": told.get("name"),
            "uid": told.get("uid"),
            "resourceVersion": told.get("resourceVersion"),
        }
        return {key: value for key, value in found.items() if isinstance(value, str) and value}


class Reported(msgspec.Struct, frozen=True):
    """One of the findings."""

    about: Read
    finding: Finding
