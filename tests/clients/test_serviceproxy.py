"""The service proxy's loop: the real API server before it, the kernel's nftables and conntrack behind it."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import Lab, running

from patience import PATIENT
from towpath.kernel.linux import LinuxKernel
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.kinds import Kind, Raw
from towpath.lab.serviceproxy import run_service_proxy
from towpath.lab.serviceproxy_rules import TABLE
from towpath.model.nft import NftTable

pytestmark = [pytest.mark.clients, pytest.mark.kernel]
SERVICES: Kind[Raw] = Kind(plural="services", type=Raw)
SLICES: Kind[Raw] = Kind(plural="endpointslices", type=Raw, group="discovery.k8s.io")
ONE, TWO = "127.9.0.1", "127.9.0.2"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("lab")
    subprocess.run(["ip", "route", "replace", "10.43.0.0/16", "dev", "lo"], check=True)
    with running(folder, "--no-controllers") as lab:
        yield lab


@pytest.fixture
async def client(lab: Lab) -> AsyncIterator[Client]:
    async with Client(from_files([lab.folder / "kubeconfig"])) as client:
        task = asyncio.create_task(run_service_proxy(client, kernel := LinuxKernel(), "n1"))
        yield client
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for listing in (await client.list(SERVICES, "default"), await client.list(SLICES, "default")):
            for item in listing.items:
                kind = SERVICES if "clusterIP" in item.get("spec", {}) else SLICES
                if item["metadata"]["name"] == "web":
                    await client.delete(kind, "web", "default")
        kernel.close()


def table() -> NftTable | None:
    kernel = LinuxKernel()
    try:
        return kernel.observe(table=TABLE).nft
    finally:
        kernel.close()


async def until(holds: Callable[[], bool], seconds: float = PATIENT) -> float:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() < begun + seconds, table()
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


def slices(*addresses: str, protocol: str = "TCP", port: int = 8080) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": protocol}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
    }


async def create(client: Client, protocol: str = "TCP") -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": protocol}]},
    }
    made = await client.create(SERVICES, body, "default")
    ip: str = made["spec"]["clusterIP"]
    return ip


def rules() -> set[str]:
    found = table()
    chains = found.chains.values() if found else ()
    return {r for c in chains if c.name.startswith(("svc-default.web", "all-default.web")) for r in c.rules}


async def test_follows_services_and_leaves_nothing_of_them(client: Client) -> None:
    await create(client)
    await client.create(SLICES, slices("10.42.0.2"), "default")
    await until(lambda: rules() == {"meta l4proto tcp dnat ip to 10.42.0.2:8080"})
    await client.patch(SLICES, "web", {"endpoints": slices("10.42.0.2", "10.42.1.2")["endpoints"]}, "default")
    await until(lambda: any("10.42.1.2 . 8080" in r for r in rules()))
    await client.delete(SERVICES, "web", "default")
    await until(lambda: rules() == set())
    left = table()
    assert left is not None
    assert left.sets["nodeport4"].elements == {}


async def test_what_others_flush_is_mended_at_once(client: Client) -> None:
    await create(client)
    await client.create(SLICES, slices("10.42.0.2"), "default")
    await until(lambda: bool(rules()))
    await asyncio.sleep(0.3)
    removed = await asyncio.create_subprocess_exec("nft", "delete", "table", "inet", TABLE)
    assert await removed.wait() == 0
    assert await until(lambda: bool(rules())) < 20.0  # usually 20 ms; the regular look is after 30 s


async def test_datagrams_are_not_sent_to_a_backend_that_left(client: Client) -> None:
    """One socket sends on and on, so that its conntrack entry would live for ever."""
    ip = await create(client, "UDP")
    servers = []
    for address in (ONE, TWO):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((address, 9090))
        server.setblocking(False)
        servers.append(server)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))

    def hears(server: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            sender.sendto(b"x", (ip, 80))
        with contextlib.suppress(BlockingIOError):
            return bool(server.recv(10))
        return False

    await client.create(SLICES, slices(ONE, protocol="UDP", port=9090), "default")
    await until(lambda: hears(servers[0]))
    await client.patch(SLICES, "web", {"endpoints": slices(TWO)["endpoints"]}, "default")
    await until(lambda: hears(servers[1]))
    for sock in (*servers, sender):
        sock.close()
