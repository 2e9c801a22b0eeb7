"""The writes of block mode as values: one change of one object each, with its reason. Pure."""

from typing import Literal

import msgspec

from towpath.ipam.affinity import Affinity, Handle, affinity_name, write_affinity, write_handle
from towpath.ipam.blocks import Block, Raw, block_name, write_block
from towpath.model.net import Net

Plural = Literal["blockaffinities", "ipamblocks", "ipamhandles"]


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one object. ``object`` carries the resourceVersion it was read with; a deletion is on
    condition of ``version`` and ``uid``.
    """

    plural: Plural
    verb: Literal["create", "update", "delete"]
    name: str
    object: Raw = {}
    version: str = ""
    uid: str = ""
    why: str = ""

    def describe(self) -> str:
        """In one line."""
        return f"{self.verb} {self.plural}/{self.name}: {self.why}"


def create_affinity(node: str, cidr: Net, why: str) -> Write:
    """A pending affinity of a node."""
    one = Affinity(node=node, cidr=cidr)
    name = affinity_name(node, cidr)
    return Write(plural="blockaffinities", verb="create", name=name, object=write_affinity(one), why=why)


def update_affinity(one: Affinity, why: str) -> Write:
    """Change an affinity."""
    return Write(plural="blockaffinities", verb="update", name=one.name, object=write_affinity(one), why=why)


def update_block(block: Block, why: str) -> Write:
    """Change a block."""
    return Write(
        plural="ipamblocks", verb="update", name=block_name(block.cidr), object=write_block(block), why=why
    )


def delete_block(block: Block) -> Write:
    """Delete one that says itself that it is deleted."""
    return Write(
        plural="ipamblocks",
        verb="delete",
        name=block_name(block.cidr),
        version=block.version,
        uid=block.uid,
        why="it was given up",
    )


def update_handle(one: Handle, why: str) -> Write:
    """Change a handle."""
    return Write(
        plural="ipamhandles", verb="update", name=one.handle.lower(), object=write_handle(one), why=why
    )


def delete_affinity(one: Affinity) -> Write:
    """Delete one that says itself that it is deleted."""
    return Write(
        plural="blockaffinities",
        verb="delete",
        name=one.name,
        version=one.version,
        uid=one.uid,
        why="it was given up",
    )


def create_block(block: Block, why: str) -> Write:
    """Make a block, unless there is one."""
    return Write(
        plural="ipamblocks", verb="create", name=block_name(block.cidr), object=write_block(block), why=why
    )


def create_handle(one: Handle, why: str) -> Write:
    """Make a handle, unless there is one."""
    name = one.handle.lower()
    return Write(plural="ipamhandles", verb="create", name=name, object=write_handle(one), why=why)


def delete_handle(one: Handle) -> Write:
    """Delete one that says itself that it is deleted."""
    return Write(
        plural="ipamhandles",
        verb="delete",
        name=one.handle.lower(),
        version=one.version,
        uid=one.uid,
        why="it counted nothing",
    )
