"""All that policy depends on, from the cluster: those kinds that the server has and lets us read."""

import asyncio
from typing import NamedTuple, TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, Malformed, NotFound
from towpath.kube.kinds import Kind, Raw

T = TypeVar("T")


class _Set(NamedTuple):
    """Kinds by plural, of one group; in the first of ``versions`` that is served."""

    group: str
    versions: tuple[str, ...]
    kinds: dict[str, str]


_CORE = {"pods": "Pod", "namespaces": "Namespace", "nodes": "Node", "serviceaccounts": "ServiceAccount"}
_ADMIN = {
    "adminnetworkpolicies": "AdminNetworkPolicy",
    "baselineadminnetworkpolicies": "BaselineAdminNetworkPolicy",
}
_SETS = (
    _Set("discovery.k8s.io", ("v1", "v1beta1"), {"endpointslices": "EndpointSlice"}),
    _Set("networking.k8s.io", ("v1",), {"networkpolicies": "NetworkPolicy"}),
    _Set("policy.networking.k8s.io", ("v1alpha2",), {"clusternetworkpolicies": "ClusterNetworkPolicy"}),
    _Set("policy.networking.k8s.io", ("v1alpha1",), _ADMIN),
)
_CALICO = {
    "networkpolicies": "NetworkPolicy",
    "globalnetworkpolicies": "GlobalNetworkPolicy",
    "tiers": "Tier",
    "networksets": "NetworkSet",
    "globalnetworksets": "GlobalNetworkSet",
    "hostendpoints": "HostEndpoint",
    "stagednetworkpolicies": "StagedNetworkPolicy",
    "stagedglobalnetworkpolicies": "StagedGlobalNetworkPolicy",
    "stagedkubernetesnetworkpolicies": "StagedKubernetesNetworkPolicy",
}
_STORED = _Set("crd.projectcalico.org", ("v1",), _CALICO)
_SERVED = _Set("projectcalico.org", ("v3",), _CALICO)


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


async def gather(client: Client) -> tuple[list[Raw], list[str]]:
    """Objects, with apiVersion and kind, and notes on what may not be read. Raises ApiError."""
    answer = await client.request("GET", "/apis", operation="discover")
    groups = {(g.name, v.version) for g in _decoded(answer, _Groups).groups for v in g.versions}
    kinds = [(Kind(plural=plural, type=dict), name) for plural, name in _CORE.items()]
    for found in await asyncio.gather(*(_kinds(client, groups, one) for one in _SETS)):
        kinds += found
    # Calico's API server shows what is stored; only where nothing is, it stores in its own way.
    kinds += await _kinds(client, groups, _STORED) or await _kinds(client, groups, _SERVED)
    notes: list[str] = []
    lists = await asyncio.gather(*(_list(client, kind, name, notes) for kind, name in kinds))
    return [raw for each in lists for raw in each], notes


async def _kinds(client: Client, groups: set[tuple[str, str]], one: _Set) -> list[tuple[Kind[Raw], str]]:
    """Those that are served."""
    version = next((version for version in one.versions if (one.group, version) in groups), "")
    if not version:
        return []
    try:
        answer = await client.request("GET", f"/apis/{one.group}/{version}", operation="discover")
    except NotFound:
        return []
    plurals = [resource.name for resource in _decoded(answer, _Resources).resources]
    return [
        (Kind(plural=plural, type=dict, group=one.group, version=version), one.kinds[plural])
        for plural in plurals
        if plural in one.kinds
    ]


async def _list(client: Client, kind: Kind[Raw], name: str, notes: list[str]) -> list[Raw]:
    try:
        listing = await client.list(kind)
    except (Forbidden, NotFound) as refused:
        notes.append(f"{kind.plural} are left out: {refused}")
        return []
    version = f"{kind.group}/{kind.version}".lstrip("/")
    return [{**raw, "apiVersion": version, "kind": name} for raw in listing.items]


def _decoded(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as odd:
        raise Malformed("discover", "/apis", str(odd)) from odd
