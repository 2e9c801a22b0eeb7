"""Which kinds of policy an API server has, and in which version. Asked, never assumed."""

from typing import TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import Malformed, NotFound
from towpath.kube.kinds import Kind, Raw
from towpath.policy.sources import SOURCES, Source

T = TypeVar("T")

_SLICES = "discovery.k8s.io"


class Served(msgspec.Struct, frozen=True):
    """``kinds`` by what reads them; ``slices`` the version of EndpointSlices."""

    kinds: dict[Source, Kind[Raw]]
    slices: str


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Group(msgspec.Struct, frozen=True):
    name: str
    versions: list[_Version] = []


class _Groups(msgspec.Struct, frozen=True):
    """``metav1.APIGroupList``."""

    groups: list[_Group] = []


class _Resource(msgspec.Struct, frozen=True):
    name: str


class _Resources(msgspec.Struct, frozen=True):
    """``metav1.APIResourceList``."""

    resources: list[_Resource] = []


async def offered(client: Client) -> Served:
    """Ask for the groups, and for the resources of those that matter. Raises KubeError.

    Calico's API server (``projectcalico.org``) shows the same objects as the custom resources behind it, so
    where both are served the latter are taken.
    """
    groups = await _groups(client)
    wanted = {(s.group, version) for s in SOURCES for version in s.versions}
    known: dict[tuple[str, str], frozenset[str]] = {}
    for group, version in sorted(wanted & groups):
        known[group, version] = await _plurals(client, group, version)
    kinds: dict[Source, Kind[Raw]] = {}
    stored = {s.plural for s in SOURCES if s.group == "crd.projectcalico.org" and _version(s, known)}
    for source in SOURCES:
        version = _version(source, known)
        if version and not (source.group == "projectcalico.org" and source.plural in stored):
            kinds[source] = Kind(
                plural=source.plural,
                type=dict,
                group=source.group,
                version=version,
                namespaced=source.namespaced,
            )
    return Served(kinds, "v1" if (_SLICES, "v1") in groups else "v1beta1")


def _version(source: Source, known: dict[tuple[str, str], frozenset[str]]) -> str:
    return next((v for v in source.versions if source.plural in known.get((source.group, v), ())), "")


async def _groups(client: Client) -> frozenset[tuple[str, str]]:
    """Group and version of all that is served."""
    answer = await client.request("GET", "/apis", operation="discover")
    return frozenset(
        (group.name, one.version) for group in _decoded(answer, _Groups).groups for one in group.versions
    )


async def _plurals(client: Client, group: str, version: str) -> frozenset[str]:
    """Of one group and version; none where the server has it no more."""
    try:
        answer = await client.request("GET", f"/apis/{group}/{version}", operation="discover")
    except NotFound:
        return frozenset()
    return frozenset(one.name for one in _decoded(answer, _Resources).resources)


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as odd:
        raise Malformed("discover", "/apis", str(odd)) from odd
