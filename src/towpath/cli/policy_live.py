"""All that policy depends on, from the cluster: those kinds that the server has and lets us read."""

import asyncio
from collections.abc import Iterable

import msgspec

from towpath.kube.client import Client
from towpath.kube.discovery import served
from towpath.kube.errors import Forbidden, Malformed, NotFound
from towpath.kube.kinds import Kind, Raw

_CALICO = ("crd.projectcalico.org", "projectcalico.org")  # stored, or where they are only served

# group -> versions, best first -> kinds by plural
_GROUPS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "discovery.k8s.io": (("v1", "v1beta1"), {"endpointslices": "EndpointSlice"}),
    "networking.k8s.io": (("v1",), {"networkpolicies": "NetworkPolicy"}),
}
_ADMIN = {
    "v1alpha2": {"clusternetworkpolicies": "ClusterNetworkPolicy"},
    "v1alpha1": {
        "adminnetworkpolicies": "AdminNetworkPolicy",
        "baselineadminnetworkpolicies": "BaselineAdminNetworkPolicy",
    },
}
_CORE = {"pods": "Pod", "namespaces": "Namespace", "nodes": "Node", "serviceaccounts": "ServiceAccount"}
_CALICO_KINDS = {
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


class _Resource(msgspec.Struct, frozen=True):
    name: str


class _Resources(msgspec.Struct, frozen=True):
    """``metav1.APIResourceList``."""

    resources: list[_Resource] = []


async def gather(client: Client) -> tuple[list[Raw], list[str]]:
    """Objects, with apiVersion and kind, and notes on what may not be read. Raises ApiError."""
    notes: list[str] = []
    asked: list[tuple[str, tuple[str, ...], dict[str, str]]] = [("", ("v1",), _CORE)]
    asked += [(group, versions, kinds) for group, (versions, kinds) in _GROUPS.items()]
    asked += [("policy.networking.k8s.io", (version,), kinds) for version, kinds in _ADMIN.items()]
    found = [_group(client, group, versions, kinds, notes) for group, versions, kinds in asked]
    parts = await asyncio.gather(*found, _calico(client, notes))
    return [raw for part in parts for raw in part], notes


async def _calico(client: Client, notes: list[str]) -> list[Raw]:
    stored, only_served = ((group, version) for group, version in zip(_CALICO, ("v1", "v3"), strict=True))
    found = await _group(client, stored[0], (stored[1],), _CALICO_KINDS, notes)
    return found or await _group(client, only_served[0], (only_served[1],), _CALICO_KINDS, notes)


async def _group(
    client: Client, group: str, versions: tuple[str, ...], kinds: dict[str, str], notes: list[str]
) -> list[Raw]:
    """What the server has of one group, in the first of the versions that it serves."""
    try:
        offered = await _offered(client, group, versions)
    except NotFound:
        return []
    except Forbidden as refused:
        notes.append(f"{group or 'the core API'} is left out: {refused}")
        return []
    wanted = [(kind, kinds[kind.plural]) for kind in offered if kind.plural in kinds]
    lists = await asyncio.gather(*(_list(client, kind, name, notes) for kind, name in wanted))
    return [raw for each in lists for raw in each]


async def _offered(client: Client, group: str, versions: tuple[str, ...]) -> list[Kind[Raw]]:
    kind: Kind[Raw] = Kind(plural="", type=dict, group=group, version=versions[0])
    if group:
        kind = await served(client, kind, versions)
    answer = await client.request("GET", kind.path(), operation="discover")
    try:
        resources = msgspec.json.decode(answer, type=_Resources).resources
    except msgspec.DecodeError as odd:
        raise Malformed("discover", group or "v1", str(odd)) from odd
    return [msgspec.structs.replace(kind, plural=name) for name in _names(resources)]


def _names(resources: Iterable[_Resource]) -> list[str]:
    """Without subresources."""
    return [resource.name for resource in resources if "/" not in resource.name]


async def _list(client: Client, kind: Kind[Raw], name: str, notes: list[str]) -> list[Raw]:
    try:
        listing = await client.list(kind)
    except (Forbidden, NotFound) as refused:
        notes.append(f"{kind.plural} are left out: {refused}")
        return []
    version = f"{kind.group}/{kind.version}".lstrip("/")
    return [{**raw, "apiVersion": version, "kind": name} for raw in listing.items]
