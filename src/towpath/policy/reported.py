"""A finding with the object it is about, as the API knows it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.model.finding import Finding
from towpath.policy.sources import Resource


class Reported(msgspec.Struct, frozen=True):
    """``raw`` is the object as it was read."""

    resource: Resource
    raw: Mapping[str, Any]
    finding: Finding

    def reference(self) -> dict[str, str]:
        """A ``v1.ObjectReference``."""
        metadata = self.raw.get("metadata")
        told = metadata if isinstance(metadata, Mapping) else {}
        found = {
            "apiVersion": f"{self.resource.group}/{self.resource.versions[0]}",
            "kind": self.resource.kind,
            "namespace": told.get("namespace"),
            "name": told.get("name"),
            "uid": told.get("uid"),
            "resourceVersion": told.get("resourceVersion"),
        }
        return {key: value for key, value in found.items() if isinstance(value, str) and value}
