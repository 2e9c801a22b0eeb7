"""Block mode: fifty nodes of two hundred pods, from nothing, on the lab's API server.

Every node follows the blocks by a watch, as its agent does, and puts leases on the disk (fsync). An address
counts as had when its lease is durable. ``writes_per_allocation`` are writes by which nodes mark addresses
of blocks they own; with the claims of those blocks it is ``writes_per_allocation_from_nothing``.
"""

import asyncio
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from towpath.agent.block_api import BlockApi
from towpath.agent.block_stock import Stock
from towpath.ipam.block_plan import Demand
from towpath.ipam.block_writes import Write
from towpath.ipam.pools import Pool
from towpath.ipam.store import Choice, LeaseStore
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.kinds import BLOCK_AFFINITIES, DEFINITIONS, IPAM_BLOCKS
from towpath.kube.reflector import Reflector, Selection
from towpath.model.attachment import Attachment
from towpath.model.net import Addr

NODES, PODS = 50, 200
TOGETHER = 5
POOL = Pool(name="pool", cidr=ip_network("10.64.0.0/15"), block=26)
CLAIMS = ("create blockaffinities", "create ipamblocks", "update blockaffinities")
KINDS = Path(__file__).parents[1] / "manifests" / "calico-ipam.yaml"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Path]:
    """The lab's API server as a process; the path of its kubeconfig."""
    command = [sys.executable, "-m", "towpath.lab.controlplane", "--dir", str(folder), "--port", "0"]
    process = subprocess.Popen([*command, "--no-controllers"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("READY"):
            raise SystemExit("the lab's API server does not start")
        yield folder / "kubeconfig"
    finally:
        process.terminate()
        process.wait(timeout=30)


class Counted(BlockApi):
    """Counts writes by what they do."""

    def __init__(self, client: Client, node: str) -> None:
        super().__init__(client, node)
        self.sent: Counter[str] = Counter()

    async def carry_out(self, write: Write) -> bool:
        self.sent[f"{write.verb} {write.plural}"] += 1
        return await super().carry_out(write)


class Node:
    """What an agent does for addresses, without what it does for interfaces."""

    def __init__(self, name: str, client: Client, folder: Path) -> None:
        self.name = name
        self.store = LeaseStore(folder / name, boot_id="bench", clock=time.monotonic, hold=86400.0)
        self.store.open()
        self.api = Counted(client, name)
        self.stock = Stock(self.api, self.store.leased, self.store.held)
        self.stock.pools = (POOL,)
        self._follow = [
            Reflector(client, Selection(kind=kind), self._hearer(kind.plural))
            for kind in (IPAM_BLOCKS, BLOCK_AFFINITIES)
        ]
        self.tasks = [asyncio.create_task(reflector.run()) for reflector in self._follow]

    def _hearer(self, plural: Any) -> Any:
        def heard(key: Key | None) -> None:
            if key is None:
                return
            objects = self._follow[0 if plural == "ipamblocks" else 1].objects
            if key in objects:
                self.api.mirror.take(plural, objects[key])
            else:
                self.api.mirror.gone(plural, key[1])

        return heard

    async def listed(self) -> None:
        for reflector in self._follow:
            await reflector.listed.wait()

    async def pod(self, number: int) -> float:
        """Seconds until the lease is durable."""
        begun = time.perf_counter()
        found: list[Addr] = []

        def there() -> bool:
            address = self.stock.pick([POOL], lambda _: False)
            found[:] = [address] if address is not None else []
            return address is not None

        if not there():
            while True:
                await self.stock.obtain(Demand(pools=(POOL,)), there)
                if there():
                    break
        att = Attachment(
            container_id=f"{self.name}-{number:07d}".ljust(64, "f"),
            ifname="eth0",
            network="bench",
            netns="/run/netns/x",
            host_ifname=f"cali{number:07d}",
            addresses=tuple(found),
            mac="02:00:00:00:00:01",
            mtu=1450,
            boot_id="bench",
        )
        await self.store.add(att, [Choice(found[0], None)])
        return time.perf_counter() - begun

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.store.close()


async def fill(node: Node, first: int, count: int) -> list[float]:
    """Pods of one node, ``TOGETHER`` at a time."""
    seconds: list[float] = []
    for begin in range(first, first + count, TOGETHER):
        numbers = range(begin, min(begin + TOGETHER, first + count))
        seconds += await asyncio.gather(*map(node.pod, numbers))
    return seconds


@contextlib.asynccontextmanager
async def clients(kubeconfig: Path, count: int) -> AsyncIterator[list[Client]]:
    """One for each node, as each agent has its own connections."""
    async with contextlib.AsyncExitStack() as stack:
        settings = config.load(str(kubeconfig))
        yield [await stack.enter_async_context(Client(settings)) for _ in range(count)]


async def run() -> dict[str, float]:
    """Both parts."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-bench-", dir="/var/tmp"))
    try:
        (folder / "api").mkdir()
        with server(folder / "api") as kubeconfig:
            async with clients(kubeconfig, NODES + 1) as found:
                for document in yaml.safe_load_all(KINDS.read_text()):
                    await found[0].create(DEFINITIONS, document)
                nodes = [Node(f"node-{n}", client, folder) for n, client in enumerate(found[:NODES])]
                try:
                    await asyncio.gather(*(node.listed() for node in nodes))
                    begun = time.perf_counter()
                    seconds = [
                        s for one in await asyncio.gather(*(fill(n, 0, PODS) for n in nodes)) for s in one
                    ]
                    whole = time.perf_counter() - begun
                    leased = [a for node in nodes for a in node.store.leased()]
                    if len(set(leased)) != NODES * PODS:
                        raise SystemExit(f"{len(leased)} leases, {len(set(leased))} addresses")
                    writes: Counter[str] = sum((node.api.sent for node in nodes), Counter())
                    claims = sum(writes[key] for key in CLAIMS)
                    return {
                        "blocks_p50_ms": statistics.median(seconds) * 1000,
                        "blocks_p99_ms": statistics.quantiles(seconds, n=100)[98] * 1000,
                        "blocks_alloc_per_s": NODES * PODS / whole,
                        "blocks_conflicts": sum(node.api.conflicts for node in nodes),
                        "writes_per_allocation_from_nothing": writes.total() / len(seconds),
                        "writes_per_allocation": (writes.total() - claims) / len(seconds),
                    }
                finally:
                    await asyncio.gather(*(node.close() for node in nodes))
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Run alone."""
    print({key: round(value, 4) for key, value in asyncio.run(run()).items()})


if __name__ == "__main__":
    main()
