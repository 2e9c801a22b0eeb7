"""A node's picture of the objects of block mode: a watch that lags, and the answers to its own writes.

An older version never takes the place of a newer one. A node that took an event from before its own last
write for the present would give out an address that it has given back.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from towpath.ipam.affinity import Affinity, Config, Handle, read_affinity, read_handle
from towpath.ipam.block_plan import World, handle_of
from towpath.ipam.block_writes import Plural
from towpath.ipam.blocks import Block, read_block
from towpath.ipam.errors import BadBlock
from towpath.model.net import Addr, Net

_REMEMBERED = 1000


class Mirror:
    """What ``node`` knows. ``unreadable`` are objects that make no sense, by name, and what is wrong."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.blocks: dict[Net, Block] = {}
        self.affinities: dict[Net, Affinity] = {}
        self.handle: Handle | None = None
        self.unreadable: dict[tuple[Plural, str], BadBlock] = {}
        self._versions: dict[tuple[Plural, str], int] = {}
        self._buried: dict[tuple[Plural, str], int] = {}
        self._cidrs: dict[str, Net] = {}
        self._held: dict[Net, tuple[Addr, ...]] = {}

    def take(self, plural: Plural, obj: Mapping[str, Any]) -> None:
        """An object as it was seen, by whatever way. Affinities and handles of others are passed over."""
        meta = obj["metadata"]
        key, version = (plural, str(meta["name"])), int(meta.get("resourceVersion") or 0)
        if version < self._versions.get(key, 0) or version <= self._buried.get(key, -1):
            return
        try:
            self._read(plural, key[1], obj)
        except BadBlock as bad:
            self.unreadable[key] = bad
            self._forget(plural, key[1], certain=False)
        else:
            self.unreadable.pop(key, None)
        self._versions[key] = version

    def gone(self, plural: Plural, name: str, version: str = "") -> None:
        """An object is no more. ``version`` is the last that it had, where this node deleted it itself."""
        key = (plural, name)
        if version:
            self._buried[key] = max(int(version), self._versions.get(key, 0))
            while len(self._buried) > _REMEMBERED:
                del self._buried[next(iter(self._buried))]
        self._versions.pop(key, None)
        self.unreadable.pop(key, None)
        self._forget(plural, name, certain=True)

    def world(
        self,
        config: Config,
        skip: Callable[[Addr], bool],
        home: tuple[Net, ...] = (),
        sequence: int = 0,
        closed: tuple[Net, ...] = (),
    ) -> World:
        """All of it, to plan by."""
        bad = frozenset(
            self._cidrs[name]
            for plural, name in self.unreadable
            if plural == "ipamblocks" and name in self._cidrs
        )
        return World(
            node=self.node,
            blocks=self.blocks,
            affinities=self.affinities,
            handle=self.handle,
            unreadable=bad,
            config=config,
            skip=skip,
            home=home,
            sequence=sequence,
            closed=closed,
            held=self._held,
        )

    def _read(self, plural: Plural, name: str, obj: Mapping[str, Any]) -> None:
        match plural:
            case "ipamblocks":
                if (cidr := _cidr_of(name)) is not None:
                    self._cidrs[name] = cidr
                block = read_block(obj)
                self._cidrs[name] = block.cidr
                self.blocks[block.cidr] = block
                self._held[block.cidr] = block.of(handle_of(self.node))
            case "blockaffinities":
                affinity = read_affinity(obj)
                if affinity.node == self.node:
                    self._cidrs[name] = affinity.cidr
                    self.affinities[affinity.cidr] = affinity
            case "ipamhandles":
                if name == handle_of(self.node):
                    self.handle = read_handle(obj)

    def _forget(self, plural: Plural, name: str, *, certain: bool) -> None:
        """``certain``: it is no more; else it is there, and not understood, and what is taken stays so."""
        if plural == "ipamhandles":
            if name == handle_of(self.node):
                self.handle = None
            return
        found: dict[Net, Any] = self.blocks if plural == "ipamblocks" else self.affinities
        cidr = self._cidrs.get(name)
        if cidr is not None and plural == "blockaffinities":
            known = self.affinities.get(cidr)
            if known is not None and known.name != name:
                return
        if cidr is not None:
            found.pop(cidr, None)
            if plural == "ipamblocks":
                self._held.pop(cidr, None)
        if certain:
            self._cidrs.pop(name, None)


def _cidr_of(name: str) -> Net | None:
    """The block that an object is named after: the only thing that is sure of one that cannot be read."""
    head, _, length = name.rpartition("-")
    for text in (head.replace("-", "."), head.replace("-", ":")):
        try:
            return ip_network(f"{text}/{length}")
        except ValueError:
            continue
    return None
