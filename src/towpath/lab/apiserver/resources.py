"""What a resource is (``Resource``), and the registry of those that the server serves."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from towpath.lab.apiserver.errors import no_such_path

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource in discovery: ``kind`` with its own group and version where they differ."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource of one version.

    ``storage`` names the bucket, common to all versions. ``type`` is the schema's name for builtin kinds and
    empty for custom ones. ``verbs`` without get means that nothing is stored (reviews).
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    type: str = ""
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    storage: str = ""
    singular: str = ""
    list_kind: str = ""
    selectable: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def bucket(self) -> str:
        """Name of the store's bucket."""
        return self.storage or f"{self.group}/{self.plural}"

    def sub(self, name: str) -> Subresource | None:
        """The subresource of that name."""
        return next((s for s in self.subresources if s.name == name), None)


def status_of(resource: Resource, *more: Subresource) -> Resource:
    """The resource with a ``status`` subresource and ``more``."""
    status = Subresource("status", resource.kind, STATUS_VERBS)
    return replace(resource, subresources=(status, *more))


@dataclass(slots=True)
class Registry:
    """Served resources by (group, version, plural), in discovery's order. CRDs come and go at run time."""

    resources: dict[tuple[str, str, str], Resource] = field(default_factory=dict)
    generation: int = 0  # changes whenever what is served changes

    def add(self, resource: Resource) -> None:
        """Serve it, replacing a former definition."""
        self.resources[resource.group, resource.version, resource.plural] = resource
        self.generation += 1

    def drop(self, group: str, version: str, plural: str) -> None:
        """Serve it no more."""
        if self.resources.pop((group, version, plural), None):
            self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource:
        """Raises ApiError 404."""
        found = self.resources.get((group, version, plural))
        if found is None:
            raise no_such_path()
        return found

    def kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of a kind."""
        return next((r for r in self if r.api_version == api_version and r.kind == kind), None)

    def group_versions(self) -> dict[str, list[str]]:
        """Groups with their versions, the preferred one first; the legacy group is ``""``."""
        found: dict[str, list[str]] = {}
        for r in self:
            versions = found.setdefault(r.group, [])
            if r.version not in versions:
                versions.append(r.version)
        return {g: sorted(v, key=version_order) for g, v in found.items()}

    def of(self, group: str, version: str) -> list[Resource]:
        """Resources of one group and version."""
        return [r for r in self if r.group == group and r.version == version]

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources.values())


def version_order(version: str) -> tuple[int, int, int, str]:
    """Sort key that puts v2 before v1 before v1beta2 before v1alpha1 before anything else (CRD docs)."""
    head, _, rest = version.partition("beta")
    level = 1
    if not rest:
        head, _, rest = version.partition("alpha")
        level = 2 if rest else 0
    if not (head.startswith("v") and head[1:].isdigit() and (not rest or rest.isdigit())):
        return (3, 0, 0, version)
    return (level, -int(head[1:]), -int(rest or 0), version)
