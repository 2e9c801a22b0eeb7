"""What a node writes next: to have addresses, to give some back, to finish what was begun. One at a time.

Pure. Whoever carries a write out looks again at what is there and asks anew, so that a node that dies between
two writes leaves nothing that the next one would not finish. The order is Calico's (its ``lib/ipam``)
because its readers must find at any moment what they would after a crash of their own: an affinity (pending)
before its block, confirmed after it; a handle counts addresses before the block has them, and until it has
them no more; nothing is deleted before an update has said that it will be.

A node marks addresses in a block before it gives any of them to a pod, many at a time, all under one handle
of its own. That is what others have to know of them: they are taken, and by which node (``secondary.node``,
by which Calico's Felix routes borrowed ones). Which pod has which is in the node's lease store. Calico's
garbage collector frees what names a pod that is gone; these name none, and it leaves them alone.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from towpath.ipam.affinity import Affinity, Config, Handle
from towpath.ipam.block_writes import (
    Write,
    create_affinity,
    create_block,
    create_handle,
    delete_affinity,
    delete_block,
    delete_handle,
    update_affinity,
    update_block,
    update_handle,
)
from towpath.ipam.blocks import Block, Owner, block_name, give, host_affinity, new_block, take
from towpath.ipam.errors import AddressUnavailable, BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.model.net import Addr, Net, within

_LONGEST = 253
_NOTE = "held by Towpath's agent for pods of the node"


class World(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node knows of addresses in the cluster.

    ``closed`` are podCIDRs of nodes that do not give out addresses by blocks, or not yet: what is leased
    there is marked nowhere, and they know no way to blocks. While there are any, each keeps to its ``home``.

    ``blocks`` by CIDR, all of them; ``unreadable`` those of which it is not certain what is taken;
    ``affinities`` of this node; ``handle`` its own; ``skip`` tells which addresses are not to be given out
    (reserved ones, and those of nodes' overlay devices); ``home`` are networks whose blocks it takes first;
    ``sequence`` is higher than that of any block so far (nanoseconds since 1970). ``held`` may say what of a
    block is this node's, for those who ask often.
    """

    node: str
    blocks: Mapping[Net, Block]
    affinities: Mapping[Net, Affinity]
    handle: Handle | None = None
    unreadable: frozenset[Net] = frozenset()
    config: Config = Config()
    skip: Callable[[Addr], bool]
    home: tuple[Net, ...] = ()
    sequence: int = 0
    closed: tuple[Net, ...] = ()
    held: Mapping[Net, tuple[Addr, ...]] | None = None

    @property
    def owner(self) -> Owner:
        """Under which its addresses are marked."""
        return Owner(handle_of(self.node), {"node": self.node, "note": _NOTE})

    def stock(self, block: Block) -> tuple[Addr, ...]:
        """The addresses of a block that are this node's to give to pods."""
        if block.deleted:
            return ()
        held = self.held.get(block.cidr) if self.held is not None else None
        return block.of(handle_of(self.node)) if held is None else held

    def is_mine(self, block: Block) -> bool:
        """Whether this node has affinity to it."""
        return block.affinity == host_affinity(self.node)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that are wanted of ``pools``, tried in order: ``need`` of them at least, ``batch`` where the
    node has a block of its own with room; or one ``address``. ``skip``, if given, tells what is not wanted.
    """

    pools: tuple[Pool, ...]
    need: int = 1
    batch: int = 64
    address: Addr | None = None
    skip: Callable[[Addr], bool] | None = None


def handle_of(node: str) -> str:
    """The handle of a node's addresses: an object's name, so that a very long one is cut and hashed."""
    name = f"towpath-node-{node}".lower()
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 12]}-{hashlib.sha256(node.encode()).hexdigest()[:11]}"


def reserve(world: World, demand: Demand) -> Write:
    """The next write towards what is wanted. Raises AddressUnavailable, BlocksExhausted."""
    begun = _claim_begun(world, demand.pools)
    if begun is not None:
        return begun
    if demand.address is not None:
        return _reserve_one(world, demand.pools, demand.address)
    own = [b for b in _in_pools(world, demand.pools) if world.is_mine(b) and _confirmed(world, b.cidr)]
    for block in own:
        if room := block.room(world.skip):
            return _mark(world, block, room[: demand.batch])
    if (claim := _claim(world, demand.pools)) is not None:
        return claim
    if not world.config.strict:
        for block in _borrowable(world, demand.pools):
            return _mark(world, block, block.room(world.skip)[: demand.need])
    raise BlocksExhausted(_why_exhausted(world, demand.pools))


def is_crowded(world: World, pools: Iterable[Pool]) -> bool:
    """Whether no block of the pools is left that nobody has: then nobody should hold more than needed."""
    return next((block for pool in pools for block in _unclaimed(world, pool)), None) is None


def give_back(world: World, addresses: Collection[Addr]) -> Write | None:
    """The next write that frees addresses of this node's; None: none of them is marked as its own."""
    for block in _sorted(world.blocks.values()):
        ours = set(world.stock(block))
        doomed = [a for a in addresses if a in ours]
        if doomed:
            after = give(block, doomed, handle_of(world.node))
            return update_block(after, f"{len(doomed)} addresses are free again")
    return None


def give_up(world: World, cidr: Net) -> Write | None:
    """The write by which a node begins to give up a block of its own; ``tidy`` does the rest."""
    affinity = world.affinities.get(cidr)
    if affinity is None or affinity.state == "pendingDeletion" or affinity.deleted:
        return None
    return update_affinity(replace(affinity, state="pendingDeletion"), "the node needs it no more")


def tidy(world: World) -> Write | None:
    """The next write that finishes what was begun and mends what contradicts itself; None: all is well."""
    for affinity in sorted(world.affinities.values(), key=lambda a: _place(a.cidr)):
        if (write := _tidy_affinity(world, affinity)) is not None:
            return write
    for block in _sorted(world.blocks.values()):
        if (write := _tidy_block(world, block)) is not None:
            return write
    return _tidy_handle(world)


def _tidy_affinity(world: World, affinity: Affinity) -> Write | None:
    if affinity.deleted:
        return delete_affinity(affinity)
    block = world.blocks.get(affinity.cidr)
    if affinity.cidr in world.unreadable:
        return None
    if block is None or not world.is_mine(block):
        whose = "there is no such block" if block is None else f"the block is {block.affinity or 'nobody'}'s"
        return update_affinity(replace(affinity, deleted=True), whose)
    if affinity.state == "pending":
        return update_affinity(replace(affinity, state="confirmed"), "the block is this node's")
    if affinity.state == "pendingDeletion":
        if block.deleted:
            return delete_block(block)
        if block.empty:
            return update_block(replace(block, deleted=True), "it is empty and given up")
        return update_block(replace(block, affinity=""), "it is given up, and has addresses in use")
    return None


def _tidy_block(world: World, block: Block) -> Write | None:
    if world.is_mine(block) and block.cidr not in world.affinities:
        return create_affinity(world.node, block.cidr, "its block is this node's")
    if block.affinity:
        return None
    if block.deleted:
        return delete_block(block)
    if block.empty:
        return update_block(replace(block, deleted=True), "it is empty and nobody's")
    return None


def _tidy_handle(world: World) -> Write | None:
    name, handle = handle_of(world.node), world.handle
    counts = {
        str(block.cidr): len(found) for block in _sorted(world.blocks.values()) if (found := block.of(name))
    }
    if handle is None:
        return _write_handle(world, counts, "its addresses are counted") if counts else None
    for cidr in world.unreadable:  # what is in there is not known, so that its count stays as it is
        if (before := handle.counts.get(str(cidr))) is not None:
            counts[str(cidr)] = before
    if handle.deleted:
        return delete_handle(handle)
    if not counts:
        return update_handle(replace(handle, counts={}, deleted=True), "it counts nothing")
    if dict(handle.counts) != counts:
        return update_handle(replace(handle, counts=counts), "it counts what the blocks have")
    return None


# Reserving.


def _reserve_one(world: World, pools: Collection[Pool], address: Addr) -> Write:
    pool = next((p for p in pools if address.version == p.family and address in p.cidr), None)
    if pool is None:
        known = ", ".join(str(p.cidr) for p in pools) or "there is none"
        raise AddressUnavailable(address, f"it is in none of the pools that this pod may use ({known})")
    if not _may_hold(world, pool.block_of(address)):
        reason = "not all nodes give out addresses by blocks yet, and it is not of this node's podCIDR"
        raise AddressUnavailable(address, reason, temporary=True)
    block = next(
        (b for b in world.blocks.values() if address.version == b.cidr.version and address in b.cidr), None
    )
    if block is None:
        cidr = pool.block_of(address)
        if cidr in world.unreadable:
            raise AddressUnavailable(address, f"its block {block_name(cidr)} cannot be read")
        return create_affinity(world.node, cidr, f"{address} of it is asked for")
    owner = block.owner(address)
    if owner is not None:
        whose = owner.about.get("pod") or owner.about.get("node") or owner.handle or "somebody"
        raise AddressUnavailable(
            address, f"block {block_name(block.cidr)} has it as {whose}'s", temporary=True
        )
    if block.deleted:
        raise AddressUnavailable(address, f"block {block_name(block.cidr)} is being deleted", temporary=True)
    if world.config.strict and not world.is_mine(block):
        raise AddressUnavailable(
            address,
            f"block {block_name(block.cidr)} is {block.affinity or 'nobody'}'s, and affinity is strict",
        )
    return _mark(world, block, (address,))


def _mark(world: World, block: Block, addresses: tuple[Addr, ...]) -> Write:
    """Count first, then take: so many of ``addresses`` as the handle counts already beyond what it has."""
    handle, key = world.handle, str(block.cidr)
    if handle is not None and handle.deleted:
        write = _tidy_handle(world)
        assert write is not None  # noqa: S101 - a deleted handle is always to be finished
        return write
    counted = handle.counts.get(key, 0) if handle is not None else 0
    beyond = counted - len(block.of(handle_of(world.node)))
    if beyond <= 0:
        counts = {
            **(handle.counts if handle is not None else {}),
            key: counted - min(beyond, 0) + len(addresses),
        }
        return _write_handle(
            world, counts, f"{len(addresses)} addresses of {block.cidr} are about to be its own"
        )
    taken = addresses[:beyond]
    return update_block(take(block, taken, world.owner), f"{len(taken)} addresses are this node's")


def _claim_begun(world: World, pools: Iterable[Pool]) -> Write | None:
    """Go on with an affinity that has no block yet, or is not confirmed."""
    for pool in pools:
        for cidr, affinity in world.affinities.items():
            if not within(cidr, pool.cidr):
                continue
            if affinity.state != "pending" or affinity.deleted or cidr in world.unreadable:
                continue
            if cidr not in world.blocks:
                block = new_block(cidr, world.node, world.sequence)
                return create_block(block, f"node {world.node} claims it")
            return _tidy_affinity(world, affinity)
    return None


def _claim(world: World, pools: Iterable[Pool]) -> Write | None:
    if not world.config.claims:
        return None
    for pool in pools:
        have = sum(1 for b in world.blocks.values() if world.is_mine(b) and b.cidr.version == pool.family)
        if have >= world.config.most:
            continue
        for cidr in _unclaimed(world, pool):
            return create_affinity(world.node, cidr, f"node {world.node} has no room in {pool.name}")
    return None


def _unclaimed(world: World, pool: Pool) -> Iterator[Net]:
    """Blocks of a pool that nobody has, and that have an address that may be given out."""
    taken = sorted(
        (int(n.network_address), int(n.broadcast_address))
        for n in (*world.blocks, *world.unreadable, *world.affinities)
        if n.version == pool.family
    )
    seen = {first for first, _ in taken}
    odd = [t for t in taken if t[1] - t[0] + 1 != 1 << (pool.cidr.max_prefixlen - pool.block)]
    for cidr in pool.blocks(world.node, world.home):
        first, last = int(cidr.network_address), int(cidr.broadcast_address)
        if first in seen or any(low <= last and first <= high for low, high in odd):
            continue
        if _may_hold(world, cidr) and not all(map(world.skip, cidr)):
            yield cidr


def _borrowable(world: World, pools: Iterable[Pool]) -> list[Block]:
    """Blocks of others with room, from a place that is the node's own, lest all borrow of the same."""
    found = [
        b
        for b in _in_pools(world, pools)
        if not world.is_mine(b) and _may_hold(world, b.cidr) and b.room(world.skip)
    ]
    if not found:
        return []
    start = sum(world.node.encode()) % len(found)
    return [*found[start:], *found[:start]]


def _in_pools(world: World, pools: Iterable[Pool]) -> list[Block]:
    return [
        block
        for pool in pools
        for block in _sorted(world.blocks.values())
        if within(block.cidr, pool.cidr) and not block.deleted
    ]


def _confirmed(world: World, cidr: Net) -> bool:
    affinity = world.affinities.get(cidr)
    return affinity is not None and affinity.state == "confirmed" and not affinity.deleted


def _why_exhausted(world: World, pools: Collection[Pool]) -> str:
    if not pools:
        return "no pool may be used: none selects this node and the pod's namespace, or all are disabled"
    names = ", ".join(f"{p.name} ({p.cidr})" for p in pools)
    have = sum(1 for b in world.blocks.values() if world.is_mine(b))
    said = [
        f"no free address in {names}",
        f"node {world.node} has {have} of at most {world.config.most} blocks",
    ]
    if world.config.strict:
        said.append("affinity is strict, so that none is borrowed")
    if not world.config.claims:
        said.append("nodes take no blocks by themselves (autoAllocateBlocks is false)")
    if world.closed:
        said.append(
            "not all nodes give out addresses by blocks yet, and until then each keeps to its podCIDR"
        )
    if world.unreadable:
        said.append(f"{len(world.unreadable)} blocks cannot be read")
    return "; ".join(said)


def _write_handle(world: World, counts: Mapping[str, int], why: str) -> Write:
    if world.handle is not None:
        return update_handle(replace(world.handle, counts=counts), why)
    one = Handle(handle=handle_of(world.node), counts=counts)
    return create_handle(one, why)


def _may_hold(world: World, cidr: Net) -> bool:
    """Whether all nodes would find the way to it, and none could take it for its own."""
    return not world.closed or any(within(cidr, net) for net in world.home)


def _place(net: Net) -> tuple[int, int]:
    return net.version, int(net.network_address)


def _sorted(blocks: Iterable[Block]) -> list[Block]:
    return sorted(blocks, key=lambda b: _place(b.cidr))
