"""Nodes that fall silent, come back and go, under controllers of little patience."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import running
from hollow_nodes import NODES, PODS, HollowNodes

from patience import PATIENT
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.kinds import Kind, Raw
from towpath.lab.controllers import Settings, run

pytestmark = pytest.mark.clients
DEPLOYMENTS: Kind[Raw] = Kind(plural="deployments", type=Raw, group="apps")
SERVICES: Kind[Raw] = Kind(plural="services", type=Raw)
SLICES: Kind[Raw] = Kind(plural="endpointslices", type=Raw, group="discovery.k8s.io")
# Nodes beat every 0.2 s; a busy machine must not make one silent that is not.
TOLERATED = 2  # seconds that pods stay on a node that is taken for dead
SETTINGS = Settings(
    cluster_cidrs=(ip_network("10.42.0.0/16"),), node_grace=4.0, orphan_grace=0.2, collect_after=0.0
)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lab")
    with running(folder, "--no-controllers"):
        yield folder / "kubeconfig"


class Cluster:
    """Client and nodes."""

    def __init__(self, client: Client, nodes: HollowNodes) -> None:
        self.client, self.nodes = client, nodes

    async def pods(self) -> dict[str, Raw]:
        listing = await self.client.list(PODS, "default")
        return {p["metadata"]["name"]: p for p in listing.items if not p["metadata"].get("deletionTimestamp")}

    async def ready(self) -> set[str]:
        """Nodes of the ready pods."""
        found = await self.pods()
        return {
            p["spec"].get("nodeName", "")
            for p in found.values()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        }

    async def node(self, name: str) -> tuple[str, set[str]]:
        """Ready status and taints."""
        found = await self.client.get(NODES, name)
        status = next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready")
        return status, {
            f"{t['key'].rpartition('/')[2]}:{t['effect']}" for t in found["spec"].get("taints", [])
        }

    async def until(self, holds: Callable[[], Any]) -> float:
        """Wait for it; returns when (of the monotonic clock) it was not so yet."""
        begun = before = time.monotonic()
        while not await holds():
            assert time.monotonic() < begun + PATIENT, "did not come to pass"
            await asyncio.sleep(0.03)
            before = time.monotonic()
        return before


@pytest.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with Client(from_files([kubeconfig])) as client:
        nodes = HollowNodes(client, 3)
        tasks = [asyncio.create_task(run(client, SETTINGS)), asyncio.create_task(nodes.run(0.2))]
        made = Cluster(client, nodes)
        await client.create(DEPLOYMENTS, deployment(6), "default")
        await client.create(SERVICES, service(), "default")
        await made.until(lambda: three_nodes(made))
        yield made
        await client.delete(DEPLOYMENTS, "web", "default")
        await client.delete(SERVICES, "web", "default")
        await made.until(lambda: empty(made))
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def three_nodes(made: Cluster) -> bool:
    return await made.ready() == {"node-1", "node-2", "node-3"} and len(await made.pods()) == 6


async def empty(made: Cluster) -> bool:
    return not (await made.client.list(PODS, "default")).items


def deployment(replicas: int) -> dict[str, Any]:
    tolerated = [
        {
            "key": f"node.kubernetes.io/{k}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATED,
        }
        for k in ("unreachable", "not-ready")
    ]
    spec = {"containers": [{"name": "web", "image": "web:1"}], "tolerations": tolerated}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
        },
    }


def service() -> dict[str, Any]:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


async def served(made: Cluster) -> set[str]:
    slices = await made.client.list(SLICES, "default", label_selector="kubernetes.io/service-name=web")
    return {e["nodeName"] for s in slices.items for e in s["endpoints"] or [] if e["conditions"]["ready"]}


async def test_a_silent_node_loses_traffic_then_pods_and_gets_both_back(cluster: Cluster) -> None:
    cluster.nodes.silent.add("node-2")

    async def unreachable() -> bool:
        return await cluster.node("node-2") == (
            "Unknown",
            {"unreachable:NoSchedule", "unreachable:NoExecute"},
        )

    async def without_traffic() -> bool:
        return await served(cluster) == {"node-1", "node-3"}

    tainted = await cluster.until(unreachable)
    await cluster.until(without_traffic)
    places = {p["spec"].get("nodeName") for p in (await cluster.pods()).values()}
    if time.monotonic() - tainted < TOLERATED:  # else the machine was too slow to see them stay
        assert places == {"node-1", "node-2", "node-3"}

    async def evicted() -> bool:
        found = (await cluster.pods()).values()
        return {p["spec"].get("nodeName") for p in found} == {"node-1", "node-3"} and len(found) == 6

    await cluster.until(evicted)

    async def told() -> bool:
        events = await cluster.client.list(Kind(plural="events", type=Raw))
        return {"NodeNotReady", "TaintManagerEviction"} <= {e["reason"] for e in events.items}

    await cluster.until(told)
    await cluster.nodes.wake("node-2")

    async def back() -> bool:
        return await cluster.node("node-2") == ("True", set())

    await cluster.until(back)


async def test_pods_of_a_deleted_node_are_replaced(cluster: Cluster) -> None:
    cluster.nodes.silent.add("node-3")
    cluster.nodes.names.remove("node-3")
    await cluster.client.delete(NODES, "node-3")

    async def replaced() -> bool:
        everything = (await cluster.client.list(PODS, "default")).items
        places = [p["spec"].get("nodeName") for p in everything]
        return len(places) == 6 and set(places) == await served(cluster) <= {"node-1", "node-2"}

    await cluster.until(replaced)
