"""The networks that rules mention, of one family, as a forest: of two, one holds the other or they are apart.

What a network has that none of the smaller ones inside has, its atom, is cut into blocks that do not overlap:
an interval map can take nothing else.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from towpath.policy.facts import Block, Node


class NetTree:
    """``root``, the whole family, is always there. Addresses and networks are integers of ``bits`` bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.root = Node(0, 0, bits)
        self._levels: dict[int, dict[int, Node]] = {0: {0: self.root}}
        self._lengths = [0]  # those in use, longest first
        self._order: list[Block] = [(0, 0)]  # a network comes before those inside it

    def find(self, address: int) -> Node:
        """The innermost network that has the address."""
        for length in self._lengths:
            shift = self.bits - length
            node = self._levels[length].get(address >> shift << shift)
            if node is not None:
                return node
        return self.root

    def get(self, block: Block) -> Node | None:
        """This network, if it is there."""
        return self._levels.get(block[1], {}).get(block[0])

    def around(self, node: Node) -> Iterator[Node]:
        """The network itself and those that hold it."""
        for length in self._lengths:
            if length <= node.length:
                shift = self.bits - length
                found = self._levels[length].get(node.first >> shift << shift)
                if found is not None:
                    yield found

    def inside(self, node: Node) -> Iterator[Node]:
        """The network itself and those inside it."""
        start = bisect_left(self._order, (node.first, node.length))
        for place in range(start, len(self._order)):
            first, length = self._order[place]
            if first > node.last:
                return
            yield self._levels[length][first]

    def parent(self, node: Node) -> Node:
        """The smallest network that holds another; the root's is the root."""
        found = self.around(node)
        next(found)
        return next(found, self.root)

    def insert(self, block: Block) -> Node:
        """A new network, which must not be there."""
        first, length = block
        node = Node(first, length, self.bits)
        if length not in self._levels:
            self._levels[length] = {}
            self._lengths = sorted(self._levels, reverse=True)
        self._levels[length][first] = node
        insort(self._order, block)
        return node

    def remove(self, node: Node) -> None:
        """The network is of no interest any more. Not for the root."""
        level = self._levels[node.length]
        del level[node.first]
        if not level:
            del self._levels[node.length]
            self._lengths.remove(node.length)
        del self._order[bisect_left(self._order, (node.first, node.length))]

    def remainder(self, node: Node) -> Iterator[Block]:
        """The network less those inside it, as the fewest blocks."""
        position = node.first
        place = bisect_left(self._order, (node.first, node.length)) + 1
        while place < len(self._order):
            first, length = self._order[place]
            if first > node.last:
                break
            yield from _blocks(position, first - 1, self.bits)
            position = first + (1 << self.bits - length)
            place = bisect_left(self._order, (position, 0), place)
        yield from _blocks(position, node.last, self.bits)


def _blocks(first: int, last: int, bits: int) -> Iterator[Block]:
    """The fewest networks from one address to another."""
    while first <= last:
        size = min(first & -first or 1 << bits, 1 << (last - first + 1).bit_length() - 1)
        yield first, bits - size.bit_length() + 1
        first += size
