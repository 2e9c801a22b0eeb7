"""Custom kinds that come and go while the controllers learn of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest
from apiserver_harness import running

from patience import PATIENT
from towpath.kube.client import Client
from towpath.kube.codec import Listing
from towpath.kube.config import from_files
from towpath.kube.errors import NotFound
from towpath.kube.kinds import NAMESPACES, Kind, Raw
from towpath.lab.controllers import Settings, run

T = TypeVar("T")

pytestmark = pytest.mark.clients
CONFIG_MAPS: Kind[Raw] = Kind(plural="configmaps", type=Raw)
CRDS: Kind[Raw] = Kind(
    plural="customresourcedefinitions", type=Raw, group="apiextensions.k8s.io", namespaced=False
)
SETTINGS = Settings(cluster_cidrs=(ip_network("10.42.0.0/16"),), collect_after=0.0)


class Overtaken(Client):
    """Somebody deletes the definition of boats after they were discovered, just before they are listed."""

    async def list(self, kind: Kind[T], namespace: str = "", **options: Any) -> Listing[T]:
        if kind.plural == "boats":
            with contextlib.suppress(NotFound):
                await self.delete(CRDS, "boats.example.com")
        return await super().list(kind, namespace, **options)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    with running(tmp_path, "--no-controllers"):
        async with Overtaken(from_files([tmp_path / "kubeconfig"])) as client:
            controllers = asyncio.create_task(run(client, SETTINGS))
            yield client
            controllers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await controllers


def definition(plural: str, version: str) -> Raw:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural[:-1], "kind": plural[:-1].capitalize()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


async def gone(client: Client, kind: Kind[Any], name: str, namespace: str = "") -> None:
    """Wait until it is."""
    async with asyncio.timeout(PATIENT):
        with pytest.raises(NotFound):
            while True:
                await client.get(kind, name, namespace)
                await asyncio.sleep(0.05)


async def test_a_kind_that_goes_before_it_was_listed_stops_nothing(client: Client) -> None:
    await client.create(NAMESPACES.raw(), {"metadata": {"name": "before"}})
    await client.delete(NAMESPACES, "before")
    await gone(client, NAMESPACES, "before")
    await client.create(CRDS, definition("boats", "v1"))
    await gone(client, CRDS, "boats.example.com")
    await client.create(NAMESPACES.raw(), {"metadata": {"name": "dock"}})
    await client.create(CONFIG_MAPS, {"metadata": {"name": "mail", "namespace": "dock"}})
    await client.delete(NAMESPACES, "dock")
    await gone(client, NAMESPACES, "dock")


async def test_kinds_of_every_version_end_with_their_namespace(client: Client) -> None:
    for plural, version in (("oars", "v1alpha2"), ("sails", "v1alpha1")):
        await client.create(CRDS, definition(plural, version))
    sails: Kind[Raw] = Kind(plural="sails", type=Raw, group="example.com", version="v1alpha1")
    nobody = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "0"}
    torn = {"name": "torn", "namespace": "default", "ownerReferences": [nobody]}
    await client.create(sails, {"metadata": torn})
    await gone(client, sails, "torn", "default")  # so they are followed
    await client.create(NAMESPACES.raw(), {"metadata": {"name": "dock"}})
    await client.create(sails, {"metadata": {"name": "main", "namespace": "dock"}})
    await client.delete(NAMESPACES, "dock")
    await gone(client, NAMESPACES, "dock")
    assert not (await client.list(sails)).items
