"""Which versions of an API group a server serves: asked, never assumed."""

from collections.abc import Sequence
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

    versions: list[_Version] = []


async def served(client: Client, kind: Kind[T], versions: Sequence[str]) -> Kind[T]:
    """``kind`` in the first of ``versions`` that the server serves. Raises NotFound for none, ApiError.

    For groups with a name; the core group has had one version since 2015.
    """
    path = f"/apis/{kind.group}"
    answer = await client.request("GET", path, operation="discover")
    try:
        group = msgspec.json.decode(answer, type=_Group)
    except msgspec.DecodeError as odd:
        raise Malformed("discover", kind.group, str(odd)) from odd
    offered = {one.version for one in group.versions}
    for version in versions:
        if version in offered:
            return msgspec.structs.replace(kind, version=version)
    wanted = " or ".join(versions)
    raise NotFound("discover", kind.group, f"the server has {', '.join(sorted(offered))} but not {wanted}")
