"""Which node writes what every node knows: one does, and the next steps in when it does not.

Nodes are ranked by a hash for each thing to be written (rendezvous hashing): the first writes at once, the
next ``WRITERS - 1`` only after a while, each later than the one before.
"""

import hashlib
from collections.abc import Iterable, Mapping

from towpath.api.core import Node
from towpath.api.report import STATUS

WRITERS = 3
NEXT_AFTER = 15.0
"""Seconds that each waits for the one before it."""


def rank_of(node: str, thing: str, nodes: Iterable[str]) -> int:
    """How many of the ``nodes`` come before this one to write the thing."""

    def draw(name: str) -> bytes:
        return hashlib.blake2b(f"{name}\n{thing}".encode(), digest_size=8).digest()

    own = draw(node)
    return sum(draw(name) < own for name in nodes if name != node)


def writers(nodes: Mapping[str, Node]) -> list[str]:
    """Those that may be relied on to write."""
    return [name for name, node in nodes.items() if _writes(node)]


def _writes(node: Node) -> bool:
    """Whether it runs an agent, as far as the API knows."""
    ready = any((c.type, c.status) == ("Ready", "True") for c in node.status.conditions or ())
    return ready and STATUS in (node.metadata.annotations or {})
