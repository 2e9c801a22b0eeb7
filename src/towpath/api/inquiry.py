"""What a node's kernel does with a flow: asked of its agent, and answered, by annotations of its Node.

As with ``towpath.dev/verify`` that needs no port open anywhere, and no right that the agent has not anyway.
Whoever may patch Nodes may ask.
"""

from typing import Literal

import msgspec

from towpath.api.annotated import annotated
from towpath.api.core import Node

QUESTION = "towpath.dev/policy-question"
ANSWER = "towpath.dev/policy-answer"
MOST_FLOWS = 16


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The first packet of a flow, and whose policy of this node is meant: the sender's, or the receiver's.

    ``protocol`` an IP protocol number; ``port`` the destination's. ``host`` names a host endpoint of this
    node that is meant instead of a pod, and ``aspects`` where it is asked.
    """

    direction: Literal["ingress", "egress"]
    source: str
    destination: str
    protocol: int
    port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    host: str = ""
    aspects: tuple[Literal["local", "forwarded", "untracked", "pre-dnat"], ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """``nonce`` comes back with the answer."""

    nonce: str
    flows: tuple[Asked, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A set's element or a chain's rule as nft writes it, and what it has counted; None: it does not."""

    kind: Literal["element", "rule"]
    name: str
    text: str
    packets: int | None = None
    bytes: int | None = None

    def __str__(self) -> str:
        where = f"element {{ {self.text} }} of {self.name}" if self.kind == "element" else ""
        where = where or f"rule of {self.name}: {self.text}"
        return where if self.packets is None else f"{where} [{self.packets} packets, {self.bytes} bytes]"


class Enforcement(msgspec.Struct, frozen=True, kw_only=True):
    """What the flow's first packet finds in ``inet towpath``, in order, the last deciding that it is
    ``allowed``; or why that cannot be told.
    """

    allowed: bool | None = None
    hits: tuple[Found, ...] = ()
    problem: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One ``Enforcement`` for each flow of the question, in its order."""

    nonce: str
    flows: tuple[Enforcement, ...]


def question_on(node: Node) -> Question | None:
    """None where there is none that can be read."""
    return annotated(node.metadata, QUESTION, Question)


def answer_on(node: Node) -> Answer | None:
    """None where there is none that can be read."""
    return annotated(node.metadata, ANSWER, Answer)
