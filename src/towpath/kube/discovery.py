"""Which groups, versions and resources a server serves: asked, never assumed."""

from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import Malformed, NotFound
from towpath.kube.kinds import Kind, Raw

T = TypeVar("T")


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True):
    """``metav1.APIGroup``."""

    name: str = ""
    versions: list[_Version] = []
    preferred: _Version | None = msgspec.field(name="preferredVersion", default=None)


class _Groups(msgspec.Struct, frozen=True):
    """``metav1.APIGroupList``."""

    groups: list[_Group] = []


class _Resource(msgspec.Struct, frozen=True):
    """``metav1.APIResource``."""

    name: str
    kind: str = ""
    namespaced: bool = False
    verbs: list[str] = []


class _Resources(msgspec.Struct, frozen=True):
    """``metav1.APIResourceList``."""

    resources: list[_Resource] = []


async def served(client: Client, kind: Kind[T], versions: Sequence[str]) -> Kind[T]:
    """``kind`` in the first of ``versions`` that the server serves. Raises NotFound for none, ApiError.

    For groups with a name; the core group has had one version since 2015.
    """
    path = f"/apis/{kind.group}"
    group = await _asked(client, path, _Group)
    offered = {one.version for one in group.versions}
    for version in versions:
        if version in offered:
            return msgspec.structs.replace(kind, version=version)
    wanted = " or ".join(versions)
    raise NotFound("discover", kind.group, f"the server has {', '.join(sorted(offered))} but not {wanted}")


async def resources(
    client: Client, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], frozenset[str]]:
    """Plurals by group and version, of those ``wanted`` that are served. Raises ApiError."""
    known = await _asked(client, "/apis", _Groups)
    offered = {(group.name, one.version) for group in known.groups for one in group.versions}
    found: dict[tuple[str, str], frozenset[str]] = {}
    for group, version in sorted(offered.intersection(wanted)):
        try:
            listed = await _asked(client, f"/apis/{group}/{version}", _Resources)
        except NotFound:
            continue  # it has gone since
        found[group, version] = frozenset(one.name for one in listed.resources)
    return found


async def listable(client: Client, groups: Collection[str]) -> list[tuple[Kind[Raw], str]]:
    """Every kind that can be listed, of these groups as far as they are served, each in one version.

    The group's preferred version, for kinds that only another one has that one. With the kind's own name.
    Raises ApiError.
    """
    known = await _asked(client, "/apis", _Groups)
    found: dict[tuple[str, str], tuple[Kind[Raw], str]] = {}
    for group in known.groups:
        if group.name not in groups:
            continue
        versions = [group.preferred] if group.preferred else []
        for one in [*versions, *(v for v in group.versions if v not in versions)]:
            try:
                listed = await _asked(client, f"/apis/{group.name}/{one.version}", _Resources)
            except NotFound:
                continue  # it has gone since
            for resource in listed.resources:
                if "/" not in resource.name and "list" in resource.verbs:
                    kind: Kind[Raw] = Kind(
                        plural=resource.name,
                        type=dict,
                        group=group.name,
                        version=one.version,
                        namespaced=resource.namespaced,
                    )
                    found.setdefault((group.name, resource.name), (kind, resource.kind))
    return list(found.values())


async def _asked(client: Client, path: str, kind: type[T]) -> T:
    answer = await client.request("GET", path, operation="discover")
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as odd:
        raise Malformed("discover", path, str(odd)) from odd
