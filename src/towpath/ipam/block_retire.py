"""What is left of a node that is no more: addresses to free, blocks to give up, counts to put right. Pure.

To be done on two proofs only: the Node object is gone, and has been for a grace period; and by the API server
no pod is said to be on it.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from towpath.ipam.affinity import Handle
from towpath.ipam.block_plan import World, give_up, handle_of, tidy
from towpath.ipam.block_writes import Write, delete_handle, update_block, update_handle
from towpath.ipam.blocks import Block, give
from towpath.model.net import Net


def handles_on(node: str, blocks: Mapping[Net, Block]) -> frozenset[str]:
    """The handles of addresses that blocks have as a node's: its own, and those of Calico's pods on it."""
    return frozenset(
        owner.handle
        for block in blocks.values()
        for owner in block.owners
        if owner.about.get("node") == node or owner.handle == handle_of(node)
    )


def retire(world: World, handles: Mapping[str, Handle]) -> Write | None:
    """The next write; None: nothing is left. ``world`` is the lost node's, ``handles`` are those by name that
    had addresses on it, as they are now.
    """
    for block in world.blocks.values():
        for owner in block.owners:
            if owner.about.get("node") == world.node or owner.handle == handle_of(world.node):
                after = give(block, block.of(owner.handle), owner.handle)
                return update_block(after, f"node {world.node} is no more")
    for name, handle in sorted(handles.items()):
        if name != handle_of(world.node) and (write := _recount(world, handle)) is not None:
            return write
    for cidr in world.affinities:
        if (write := give_up(world, cidr)) is not None:
            return write
    return tidy(world)


def _recount(world: World, handle: Handle) -> Write | None:
    """Make a handle count what there is, or delete one that counts nothing."""
    if handle.deleted:
        return delete_handle(handle)
    counts = counted(handle.handle, world.blocks)
    if not counts:
        return update_handle(replace(handle, counts={}, deleted=True), "it counts nothing")
    if dict(handle.counts) != counts:
        return update_handle(replace(handle, counts=counts), "it counts what the blocks have")
    return None


def counted(handle: str, blocks: Mapping[Net, Block]) -> dict[str, int]:
    """How many addresses of each block a handle has."""
    return {str(cidr): len(found) for cidr, block in blocks.items() if (found := block.of(handle))}
