"""Which of the kinds that policy depends on an API server has, and in which version. Asked, never assumed."""

from collections.abc import Collection
from typing import TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.discovery import resources
from towpath.kube.kinds import Kind, Raw
from towpath.policy.sources import SECONDARY, SERVED, SHOWN, SOURCES, STORED, Resource, Source

R = TypeVar("R", bound=Resource)

_SLICES = Resource("discovery.k8s.io", ("v1", "v1beta1"), "endpointslices", "EndpointSlice", True)


class Served(msgspec.Struct, frozen=True):
    """``kinds`` by what reads them; ``slices`` the version of EndpointSlices."""

    kinds: dict[Source, Kind[Raw]]
    slices: str


async def offered(client: Client) -> Served:
    """What the agent follows. Raises KubeError."""
    found = await served(client, (*SOURCES, _SLICES))
    kinds = {source: found[source] for source in SOURCES if source in found}
    return Served(kinds, found[_SLICES].version if _SLICES in found else "v1")


async def shown(client: Client) -> dict[Resource, Kind[Raw]]:
    """What the command line reads beyond the core API: staged policies too. Raises KubeError."""
    return await served(client, (*SOURCES, *SHOWN, SECONDARY, _SLICES))


async def served(client: Client, wanted: Collection[R]) -> dict[R, Kind[Raw]]:
    """Those that are served, in the newest version that is. Raises KubeError.

    Calico's API server (``projectcalico.org``) shows the same objects as the custom resources behind it, so
    where both are served the latter are taken.
    """
    known = await resources(client, {(one.group, version) for one in wanted for version in one.versions})
    versions = {
        one: version
        for one in wanted
        if (version := next((v for v in one.versions if one.plural in known.get((one.group, v), ())), ""))
    }
    stored = {one.plural for one in versions if one.group == STORED}
    return {
        one: Kind(plural=one.plural, type=dict, group=one.group, version=version, namespaced=one.namespaced)
        for one, version in versions.items()
        if not (one.group == SERVED and one.plural in stored)
    }
