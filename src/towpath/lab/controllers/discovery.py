"""Which kinds the API server serves, by its discovery documents."""

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import ApiError
from towpath.kube.kinds import Kind
from towpath.lab.controllers.objects_meta import Partial
from towpath.lab.controllers.resources import Resource


class _GroupVersion(msgspec.Struct, frozen=True, rename="camel"):
    group_version: str
    version: str = ""


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    versions: list[_GroupVersion] = []
    preferred_version: _GroupVersion | None = None


class _GroupList(msgspec.Struct, frozen=True):
    groups: list[_Group] = []


class _ApiResource(msgspec.Struct, frozen=True):
    name: str
    kind: str
    namespaced: bool = False
    verbs: list[str] = []


class _ResourceList(msgspec.Struct, frozen=True):
    resources: list[_ApiResource] = []


class Catalogue(msgspec.Struct, frozen=True):
    """``resources`` that can be listed, watched and deleted, by ``plural.group``, one version of each."""

    resources: dict[str, Resource[Partial]]

    def find(self, api_version: str, kind: str) -> Resource[Partial] | None:
        """The kind an owner reference names; any version of the group will do."""
        group = api_version.rpartition("/")[0]
        same = (r for r in self.resources.values() if r.kind == kind and r.api.group == group)
        return next(same, None)


async def discover(client: Client) -> Catalogue:
    """Ask the server. A group that does not answer is left out. Raises ApiError if the server does not.

    A kind that the preferred version of its group lacks is taken from another, as client-go does
    (``ServerPreferredResources``).
    """
    found: dict[str, Resource[Partial]] = {}
    groups = msgspec.json.decode(await client.request("GET", "/apis", operation="discover"), type=_GroupList)
    versions = [("", "v1", "/api/v1")]
    for group in groups.groups:
        preferred = [group.preferred_version] if group.preferred_version else []
        versions += [
            (group.name, one.group_version.rpartition("/")[2], f"/apis/{one.group_version}")
            for one in dict.fromkeys([*preferred, *group.versions])
        ]
    for group_name, version, path in versions:
        try:
            body = await client.request("GET", path, operation="discover")
        except ApiError:
            if not group_name:
                raise
            continue
        for item in msgspec.json.decode(body, type=_ResourceList).resources:
            if "/" not in item.name and {"list", "watch", "delete"} <= set(item.verbs):
                kind: Kind[Partial] = Kind(
                    plural=item.name,
                    type=Partial,
                    version=version,
                    group=group_name,
                    namespaced=item.namespaced,
                )
                resource = Resource(item.kind, kind)
                found.setdefault(resource.id, resource)
    return Catalogue(found)
