"""What a node's agent knows of its addresses: asked, ordered and answered by annotations of its Node.

As with policies (``api.inquiry``) that needs no port and no right that the agent has not anyway. Whoever may
patch Nodes may ask, and have leases freed that nobody uses.
"""

from typing import Literal

import msgspec

from towpath.api.annotated import annotated
from towpath.api.core import Node

QUESTION = "towpath.dev/ipam-question"
ANSWER = "towpath.dev/ipam-answer"
MOST_LEASES = 1000
MOST_PROBLEMS = 200

Verb = Literal["show", "check", "mend", "release"]


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``nonce`` comes back with the answer.

    ``show`` the figures, and the leases of ``addresses`` (``leases``: all); ``check`` what is wrong; ``mend``
    what can be mended; ``release`` the addresses, with ``force`` on the node's proof alone.
    """

    nonce: str
    verb: Verb = "show"
    addresses: tuple[str, ...] = ()
    leases: bool = False
    force: bool = False


class LeaseSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lease. ``pod`` NAMESPACE/NAME, empty outside Kubernetes; ``state`` what node and API say of it."""

    address: str
    container: str
    ifname: str
    pod: str = ""
    link: str = ""
    state: str = ""


class RangeSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``ipam.usage.Usage`` as it travels."""

    range: str
    size: int
    used: int = 0
    held: int = 0
    foreign: int = 0
    reserved: int = 0
    full_in: float | None = None
    pool: str = ""


class ProblemSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding; ``mendable`` by the agent."""

    code: str
    object: str
    message: str
    fix: str
    severity: Literal["info", "warning", "error"] = "error"
    addresses: tuple[str, ...] = ()
    mendable: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``ranges`` are the node's own, ``shared`` the IPPools of block mode as the node knows them; ``pools``
    are the cluster's networks; ``waiting`` how many leases are in their grace period, ``collected`` how many
    were freed since the agent started; ``done`` and ``refused`` what came of an order, a sentence each;
    ``more`` what did not fit.
    """

    nonce: str
    ranges: tuple[RangeSeen, ...] = ()
    shared: tuple[RangeSeen, ...] = ()
    pools: tuple[str, ...] = ()
    namespaces: dict[str, int] = {}
    leases: tuple[LeaseSeen, ...] = ()
    problems: tuple[ProblemSeen, ...] = ()
    waiting: int = 0
    collected: int = 0
    done: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    more: int = 0
    error: str = ""


def question_on(node: Node) -> Question | None:
    """None where there is none that can be read."""
    return annotated(node.metadata, QUESTION, Question)


def answer_on(node: Node) -> Answer | None:
    """None where there is none that can be read."""
    return annotated(node.metadata, ANSWER, Answer)
