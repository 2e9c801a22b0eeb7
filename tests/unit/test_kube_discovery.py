"""The version of a group is the server's to say."""

import json
from typing import Any

import pytest

from towpath.kube.client import Client
from towpath.kube.discovery import served
from towpath.kube.errors import Malformed, NotFound
from towpath.kube.kinds import Kind, Raw

SLICES: Kind[Raw] = Kind(plural="endpointslices", type=dict, group="discovery.k8s.io")


class _Answers:
    """Stands in for a client that gets one document; the real thing is in the API behaviour suite."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def request(self, method: str, path: str, **_: Any) -> bytes:
        assert (method, path) == ("GET", "/apis/discovery.k8s.io")
        return self._body


@pytest.mark.parametrize(
    ("offered", "chosen"), [("v1beta1", "v1beta1"), ("v1", "v1"), ("v1beta1 v1", "v1"), ("v2 v1", "v1")]
)
async def test_the_first_version_the_server_has(offered: str, chosen: str) -> None:
    body = json.dumps({"versions": [{"version": version} for version in offered.split()]})
    found = await served(_client(body.encode()), SLICES, ("v1", "v1beta1"))
    assert found.version == chosen
    assert found.plural == "endpointslices"


async def test_none_and_nonsense() -> None:
    with pytest.raises(NotFound, match="has v9 but not v1 or v1beta1"):
        await served(_client(b'{"versions":[{"version":"v9"}]}'), SLICES, ("v1", "v1beta1"))
    with pytest.raises(Malformed):
        await served(_client(b"<html>"), SLICES, ("v1",))


def _client(body: bytes) -> Client:
    return _Answers(body)  # type: ignore[return-value]
