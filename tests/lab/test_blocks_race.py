"""Fifty nodes and one small pool, on the lab's API server: to exhaustion and back, with nodes that die."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from apiserver_world import TOKEN, World, world

from towpath.agent.block_api import BlockApi
from towpath.agent.block_stock import Stock
from towpath.ipam.block_plan import Demand, handle_of
from towpath.ipam.block_writes import Write
from towpath.ipam.blocks import read_block
from towpath.ipam.errors import BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import KubeError
from towpath.model.net import Addr

NODES = 50
POOL = Pool(name="small", cidr=ip_network("10.42.0.0/26"), block=28)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CALICO = "/apis/crd.projectcalico.org/v1"
KINDS = Path(__file__).parents[2] / "manifests" / "calico-ipam.yaml"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        for document in yaml.safe_load_all(KINDS.read_text()):
            await found.do("POST", DEFINITIONS, document, 201)
        yield found


class Killed(Exception):
    """The process is no more."""


class Mortal(BlockApi):
    """Ends at one of its writes."""

    def __init__(self, client: Client, node: str, writes: int, *, sent: bool) -> None:
        super().__init__(client, node)
        self._left, self._sent = writes, sent

    async def carry_out(self, write: Write) -> bool:
        self._left -= 1
        if self._left >= 0:
            return await super().carry_out(write)
        if self._sent:
            with contextlib.suppress(KubeError):
                await self._send(write)
        raise Killed


class Node:
    """A node's agent as far as addresses go; ``leased`` is its disk."""

    def __init__(self, name: str, client: Client) -> None:
        self.name, self._client = name, client
        self.leased: dict[Addr, str] = {}
        self.clock = 0.0

    async def start(self) -> None:
        """As after a crash: nothing is known but what the disk and the API have."""
        self.stock = Stock(
            BlockApi(self._client, self.name), lambda: self.leased, tuple, clock=lambda: self.clock
        )
        self.stock.pools = (POOL,)
        await self.stock.api.load()

    async def pod(self) -> bool:
        found: list[Addr] = []

        def there() -> bool:
            address = self.stock.pick([POOL], lambda _: False)
            found[:] = [address] if address is not None else []
            return address is not None

        try:
            await self.stock.obtain(Demand(pools=(POOL,)), there)
        except BlocksExhausted:
            return False
        self.leased[found[0]] = "pod"
        return True

    async def dies_while_starting_one(self, writes: int, *, sent: bool) -> None:
        """Killed at its next write but ``writes``: before it is sent, or before its answer is heard."""
        self.stock.api = Mortal(self._client, self.name, writes, sent=sent)
        await self.stock.api.load()
        with contextlib.suppress(Killed):
            await self.pod()
        await self.start()

    async def calm(self) -> None:
        self.clock += 3600
        for _ in range(200):
            await self.stock.api.load()
            if not await self.stock.settle():
                return
        raise AssertionError(f"{self.name} never comes to rest")


async def marked(api: World) -> dict[Addr, str]:
    """Whose each address is, by the API."""
    found = {}
    for obj in (await api.do("GET", f"{CALICO}/ipamblocks"))["items"]:
        block = read_block(obj)
        for ordinal, index in enumerate(block.allocations):
            if index is not None:
                found[block.address(ordinal)] = block.owners[index].handle
    return found


async def test_fifty_nodes_share_a_small_pool_to_the_last_address(api: World) -> None:
    chance = random.Random(7)
    config = ClientConfig(server=api.url, source="test", token=TOKEN)
    async with Client(config) as client:
        nodes = [Node(f"node-{n}", client) for n in range(NODES)]
        await asyncio.gather(*(node.start() for node in nodes))

        async def everybody_tries() -> int:
            await asyncio.gather(*(node.stock.api.load() for node in nodes))
            return sum(await asyncio.gather(*(node.pod() for node in nodes)))

        deaths = {
            node.name: (number // 2 % 5, bool(number % 2))
            for number, node in enumerate(chance.sample(nodes, 20))
        }

        async def begin(node: Node) -> None:
            if node.name in deaths:
                writes, sent = deaths[node.name]
                await node.dies_while_starting_one(writes, sent=sent)
            else:
                await node.pod()

        await asyncio.gather(*map(begin, nodes))
        for _ in range(20):
            if not await everybody_tries():
                await asyncio.gather(*(node.calm() for node in nodes))
                if not await everybody_tries():
                    break
        leases = [address for node in nodes for address in node.leased]
        assert len(leases) == len(set(leases)) == POOL.cidr.num_addresses
        owned = await marked(api)
        assert all(owned[a] == handle_of(node.name) for node in nodes for a in node.leased)

        for node in nodes:  # and back
            node.leased.clear()
        for _ in range(20):  # nodes in each other's way may take one to be in use that is given back now
            await asyncio.gather(*(node.calm() for node in nodes))
            kinds = ("ipamhandles", "ipamblocks", "blockaffinities")
            left = [one for kind in kinds for one in (await api.do("GET", f"{CALICO}/{kind}"))["items"]]
            if not left:
                break
        assert not left, [one["metadata"]["name"] for one in left]
