"""A process that allocates like the agents of a few nodes, to be killed.

    python ipam_allocator.py SERVER CA TOKEN FOLDER NODE...

Prints ``NODE ADDRESS`` once one is leased; FOLDER is the nodes' disks. At a line on its standard input it
frees all, and gives back what is marked, until it is killed.
"""

import asyncio
import contextlib
import sys
from ipaddress import ip_network
from pathlib import Path

from towpath.agent.block_api import BlockApi
from towpath.agent.block_stock import Stock
from towpath.ipam.block_plan import Demand
from towpath.ipam.errors import BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.ipam.store import Choice, LeaseStore
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import KubeError
from towpath.model.attachment import Attachment
from towpath.model.net import Addr

POOL = Pool(name="small", cidr=ip_network("10.42.0.0/26"), block=28)


class Allocator:
    """``lease`` and ``settle`` as an agent does them; its clock runs ahead, so that no spare is kept."""

    def __init__(self, client: Client, node: str, store: LeaseStore) -> None:
        self._node, self._store, self._late = node, store, 0.0
        api = BlockApi(client, node)
        self.stock = Stock(api, store.leased, store.held, clock=lambda: self._late)
        self.stock.pools = (POOL,)

    async def lease(self, number: int) -> bool:
        """One address more, on the disk; False: there is none."""
        found: list[Addr] = []

        def there() -> bool:
            address = self.stock.pick((POOL,), lambda _: False)
            found[:] = [address] if address is not None else []
            return address is not None

        try:
            await self._loaded()
            await self.stock.obtain(Demand(pools=(POOL,)), there)
        except (BlocksExhausted, KubeError):
            return False
        att = Attachment(
            container_id=f"c{number}",
            ifname="eth0",
            network="n",
            netns="",
            host_ifname=f"cali{number}",
            addresses=(found[0],),
            mac="02:00:00:00:00:01",
            mtu=1450,
            boot_id="b",
        )
        await self._store.add(att, [Choice(found[0], None)])
        print(self._node, found[0], flush=True)
        return True

    async def settle(self) -> None:
        """Give back what no pod has, and finish what was begun."""
        self._late += 3600
        with contextlib.suppress(KubeError):  # it is tried again
            while await self._loaded() and await self.stock.settle():
                pass

    async def _loaded(self) -> bool:
        await self.stock.api.load()
        return True


async def live(client: Client, node: str, file: Path, told: asyncio.Event) -> None:
    """Lease until there is nothing left, again and again, until ``told``; then free all."""
    store = LeaseStore(file, boot_id="b", clock=lambda: 0.0, hold=0.0)
    store.open()
    allocator = Allocator(client, node, store)
    number = max((int(att.container_id[1:]) for att in store.attachments()), default=0)
    for address in store.leased():
        print(node, address, flush=True)
    while not told.is_set():
        number += 1
        if not await allocator.lease(number):
            await allocator.settle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), 0.2)
    for att in store.attachments():
        await store.release(att.container_id, att.ifname)
    while True:  # nodes in each other's way may take one to be in use that is given back now
        await allocator.settle()
        await asyncio.sleep(0.5)


async def main(server: str, ca: str, token: str, folder: str, *nodes: str) -> None:
    """Until it is killed."""
    config = ClientConfig(server=server, source="test", ca=Path(ca).read_bytes(), token=token)
    told = asyncio.Event()
    async with Client(config) as client, asyncio.TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(live(client, node, Path(folder) / f"{node}.db", told))
        await asyncio.to_thread(sys.stdin.readline)
        told.set()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
