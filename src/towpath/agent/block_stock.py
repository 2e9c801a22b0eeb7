"""A node's stock of addresses in block mode: had before they are needed, given back when they are not.

An address is in stock while the API server has it marked as this node's, and it is given to a pod only out
of stock. So whoever asks what is taken is never told too little, and a pod's start costs no write while there
is stock.

Where a pool has no block left that nobody has (it is crowded), nodes hold a quarter of a block in spare while
their pods come and go, and nothing once they have not for a minute: others may have to borrow it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_network

from towpath.agent.block_api import BlockApi
from towpath.ipam.affinity import Config
from towpath.ipam.block_plan import Demand, World, give_back, give_up, is_crowded, reserve, tidy
from towpath.ipam.block_writes import Write
from towpath.ipam.blocks import Block
from towpath.ipam.errors import BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.model.net import Addr, Family, Net, within

_TRIES = 200
_PAUSE = 0.02
_ENOUGH = 16
_QUIET = 60.0
_CROWDED = 4  # addresses taken at once of a pool that is crowded


class Stock:
    """``leased`` are the addresses that pods have, ``rested`` those released lately, the longest ago first:
    they are given out last. ``reserved`` are for those who ask by name, ``lengths`` the prefix lengths of the
    nodes' podCIDRs by family: their network addresses are the overlay devices'. While ``leaving`` is true,
    nothing outside of ``home`` is given to pods any more, nor kept.
    """

    def __init__(
        self,
        api: BlockApi,
        leased: Callable[[], Mapping[Addr, object]],
        rested: Callable[[], Collection[Addr]],
        reserved: Callable[[], tuple[Net, ...]] = tuple,
        lengths: Callable[[], Mapping[Family, int]] = dict,
        home: Callable[[], tuple[Net, ...]] = tuple,
        closed: Callable[[], tuple[Net, ...]] = tuple,
        leaving: Callable[[], bool] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self._leased, self._rested = leased, rested
        self._reserved, self._lengths, self._home, self._closed = reserved, lengths, home, closed
        self._leaving = leaving
        self._clock, self._used = clock, float("-inf")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._withdrawn: frozenset[Addr] = frozenset()
        self.config = Config()
        self.pools: tuple[Pool, ...] = ()

    def world(self, skip: Callable[[Addr], bool] | None = None) -> World:
        """What is known now."""
        return self.api.mirror.world(
            self.config, skip or self._skipped(), self._home(), time.time_ns(), self._closed()
        )

    def pick(
        self, pools: Collection[Pool], foreign: Callable[[Addr], bool], reserved: tuple[Net, ...] = ()
    ) -> Addr | None:
        """An address of the pools that can be given to a pod now, until anything else gets to run."""
        leased, rested = self._leased(), self._rested()
        resting, in_stock = set(rested), set()
        for address in self._held(pools):
            if address in leased or address in self._withdrawn or _is_in(address, reserved):
                continue
            if address in resting:
                in_stock.add(address)
            elif not foreign(address):
                return address
        return next((a for a in rested if a in in_stock and not foreign(a)), None)

    def is_overlay(self, address: Addr) -> bool:
        """Whether a node has, or may come to have, an address for its overlay device: no pod gets it."""
        length = self._lengths().get(address.version)
        return length is not None and int(address) % (1 << (address.max_prefixlen - length)) == 0

    def has(self, address: Addr) -> bool:
        """Whether an address is this node's to give."""
        if address in self._withdrawn:
            return False
        world = self.world()
        block = _block_of(world, address)
        return block is not None and address in world.stock(block)

    async def obtain(self, demand: Demand, there: Callable[[], bool]) -> None:
        """Write until ``there`` is what is wanted. Raises AddressUnavailable, BlocksExhausted, KubeError."""
        self._waiting += 1
        self._used = self._clock()
        try:
            for turn in range(_TRIES):
                async with self._turn:
                    if there():
                        return
                    done = await self.api.carry_out(reserve(self.world(demand.skip), self._sized(demand)))
                if not done:  # lost a race: not all of those who lost it shall try again at once
                    await asyncio.sleep(random.uniform(0, _PAUSE * min(turn + 1, 10)))  # noqa: S311
            raise BlocksExhausted(f"{_TRIES} writes in a row lost against other nodes'; it is tried again")
        finally:
            self._waiting -= 1

    async def settle(self) -> bool:
        """Finish what was begun, give back what is not needed: one write of it. False: there is none to do.

        Raises KubeError.
        """
        async with self._turn:
            world = self.world()
            if (write := tidy(world)) is not None:
                await self.api.carry_out(write)
                return True
            surplus = self.surplus()
            if not surplus:
                idle = self._idle(world)
                if idle is not None:
                    await self.api.carry_out(idle)
                return idle is not None
            self._withdrawn = frozenset(surplus)
            try:
                write = give_back(world, surplus)
                if write is None:
                    return False
                await self.api.carry_out(write)
                return True
            finally:
                self._withdrawn = frozenset()

    def surplus(self) -> list[Addr]:
        """Addresses in stock that are to be given back: more than a spare of a crowded pool, borrowed ones,
        and blocks of which nothing is used while others have room.
        """
        world, leased = self.world(), self._leased()
        found: list[Addr] = []
        crowded = {pool.name for pool in self.pools if is_crowded(world, [pool])}
        free = {b.cidr: [a for a in world.stock(b) if a not in leased] for b in world.blocks.values()}
        for block in world.blocks.values():
            pool = next((p for p in self.pools if _holds(p, block.cidr)), None)
            if not free[block.cidr] or (self._waiting and world.is_mine(block)):
                continue
            if pool is None or pool.closed or not world.is_mine(block) or self._is_left(world, block):
                found += free[block.cidr]
            elif pool.name in crowded:
                found += free[block.cidr][self._spare(block) :]
            elif self._is_spare(world, block, free):
                found += free[block.cidr]
                free[block.cidr] = []
        return found

    def _is_left(self, world: World, block: Block) -> bool:
        return self._leaving() and not any(within(block.cidr, net) for net in world.home)

    def _spare(self, block: Block) -> int:
        used = self._clock() - self._used < _QUIET
        return len(block.allocations) // 4 if used else 0

    def _is_spare(self, world: World, block: Block, free: Mapping[Net, list[Addr]]) -> bool:
        stock = world.stock(block)
        others = sum(
            len(addresses)
            for cidr, addresses in free.items()
            if cidr != block.cidr and cidr.version == block.cidr.version and world.is_mine(world.blocks[cidr])
        )
        return len(free[block.cidr]) == len(stock) and others >= _ENOUGH

    def _idle(self, world: World) -> Write | None:
        """Give up a block of its own of which nothing is taken, where another of the family is left, or where
        others have to do with what there is.
        """
        if self._waiting:
            return None
        mine = [b for b in world.blocks.values() if world.is_mine(b)]
        for block in mine:
            pool = next((p for p in self.pools if _holds(p, block.cidr)), None)
            others = any(b is not block and b.cidr.version == block.cidr.version for b in mine)
            unused = pool is None or bool(pool.closed) or others or self._is_left(world, block)
            unused = unused or (pool is not None and is_crowded(world, [pool]))
            if block.empty and unused and (write := give_up(world, block.cidr)) is not None:
                return write
        return None

    def _held(self, pools: Collection[Pool]) -> list[Addr]:
        world = self.world()
        return [
            address
            for pool in pools
            for block in world.blocks.values()
            if _holds(pool, block.cidr) and not self._is_left(world, block)
            for address in world.stock(block)
        ]

    def _sized(self, demand: Demand) -> Demand:
        """Where others have to do with what is left, no more is taken than those who wait need."""
        waiting = max(1, self._waiting)
        crowded = is_crowded(self.world(), demand.pools)
        batch = max(waiting, _CROWDED if crowded else demand.batch)
        return Demand(pools=demand.pools, need=waiting, batch=batch, address=demand.address)

    def _skipped(self) -> Callable[[Addr], bool]:
        reserved = self._reserved()
        return lambda address: self.is_overlay(address) or _is_in(address, reserved)


def _is_in(address: Addr, nets: tuple[Net, ...]) -> bool:
    return any(address.version == net.version and address in net for net in nets)


def _holds(pool: Pool, cidr: Net) -> bool:
    return within(cidr, pool.cidr)


def _block_of(world: World, address: Addr) -> Block | None:
    for pool_length in {b.prefixlen for b in world.blocks if b.version == address.version}:
        block = world.blocks.get(ip_network((address, pool_length), strict=False))
        if block is not None:
            return block
    return None
