"""Which groups, versions and resources a server serves: asked, never assumed."""

from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import Malformed, NotFound
from towpath.kube.kinds import Kind

T = TypeVar("T")


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True):
    """``metav1.APIGroup``."""

    name: str = ""
    versions: list[_Version] = []


class _Groups(msgspec.Struct, frozen=True):
    """``metav1.APIGroupList``."""

    groups: list[_Group] = []


class _Resource(msgspec.Struct, frozen=True):
    name: str


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


async def _asked(client: Client, path: str, kind: type[T]) -> T:
    answer = await client.request("GET", path, operation="discover")
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as odd:
        raise Malformed("discover", path, str(odd)) from odd
