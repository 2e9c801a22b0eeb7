"""How full the node's blocks and the cluster's pools are, as the agent knows it: for operators and Events."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_network

from towpath.agent.block_stock import Stock
from towpath.api.core import Node
from towpath.api.report import agent_report
from towpath.ipam.block_plan import handle_of
from towpath.ipam.block_usage import block_usage, by_handle, kept_of, overlays, pool_usage
from towpath.ipam.usage import Usage
from towpath.model.net import Addr, Family, Net, within


class BlockFigures:
    """``leased``, ``rested`` and ``reserved`` as the stock has them, ``lengths`` of podCIDRs by family.

    What other nodes' pods have is what these said last of themselves, a minute old at most.
    """

    def __init__(
        self,
        node: str,
        stock: Stock,
        leased: Callable[[], Mapping[Addr, object]],
        rested: Callable[[], Collection[Addr]],
        reserved: Callable[[], tuple[Net, ...]],
        lengths: Callable[[], Mapping[Family, int]],
        nodes: Callable[[], Mapping[str, Node]],
    ) -> None:
        self._node, self._stock = node, stock
        self._leased, self._rested = leased, rested
        self._reserved, self._lengths, self._nodes = reserved, lengths, nodes
        self._counts: dict[Net, tuple[str, Counter[str]]] = {}

    def leased(self) -> dict[str, int]:
        """By pool, how many addresses this node's pods have of it."""
        found: Counter[str] = Counter()
        for address in self._leased():
            pool = next((p for p in self._stock.pools if within(ip_network(address), p.cidr)), None)
            if pool is not None:
                found[pool.name] += 1
        return dict(sorted(found.items()))

    def pools(self) -> tuple[Usage, ...]:
        """All that can be used."""
        counts, blocks, reserved = self._handles(), self._stock.api.mirror.blocks, self._reserved()
        said = {self._node: self.leased()}
        for name, node in self._nodes().items():
            report = agent_report(node) if name != self._node else None
            if report is not None and report.leased is not None:
                said[name] = report.leased
        found = []
        for pool in self._stock.pools:
            leased = {handle_of(name): numbers.get(pool.name, 0) for name, numbers in said.items()}
            kept = kept_of(pool.cidr, reserved, blocks.values()) if reserved else 0
            overlay = overlays(pool.cidr, self._lengths().get(pool.family))
            found.append(pool_usage(pool, counts, leased, overlay, kept))
        return tuple(found)

    def blocks(self, foreign: Collection[Addr]) -> tuple[Usage, ...]:
        """What this node has: blocks of its own, and what it has borrowed of others'."""
        world, leased, rested = self._stock.world(), self._leased(), self._rested()
        reserved = self._reserved()

        def kept(address: Addr) -> bool:
            return any(address.version == net.version and address in net for net in reserved)

        return tuple(
            block_usage(
                block,
                world.stock(block),
                mine=world.is_mine(block),
                skip=self._stock.is_overlay,
                reserved=kept,
                leased=leased,
                rested=rested,
                foreign=foreign,
            )
            for block in sorted(world.blocks.values(), key=lambda b: (b.cidr.version, int(b.cidr[0])))
            if world.is_mine(block) or world.stock(block)
        )

    def _handles(self) -> dict[Net, Counter[str]]:
        """Of every block; each is counted once a version."""
        blocks = self._stock.api.mirror.blocks
        for cidr, block in blocks.items():
            known = self._counts.get(cidr)
            if known is None or known[0] != block.version:
                self._counts[cidr] = block.version, by_handle(block)
        for cidr in self._counts.keys() - blocks.keys():
            del self._counts[cidr]
        return {cidr: counts for cidr, (_, counts) in self._counts.items()}
