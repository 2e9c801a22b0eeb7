"""What each agent says of itself: the Node annotations ``towpath.dev/…``.

An annotation reaches every cluster the same way: no port to open, no proxy to trust, readable with kubectl.
"""

import msgspec

from towpath.api.annotated import annotated
from towpath.api.core import Node

STATUS = "towpath.dev/status"
VERIFY = "towpath.dev/verify"
PODS_BY_WIRE = "towpath.dev/pods-by-wire"
"""Whether the node takes packets of other nodes' pods that come without a tunnel: ``accepted``, ``refused``.

Where DirectRouting is off they are forged, but while that changes from node to node some are right. So a node
says what it does: peers use the tunnel to one that refuses, and it refuses those only that say something too.
"""
ACCEPTED, REFUSED = "accepted", "refused"

IPAM_MODE = "towpath.dev/ipam-mode"
"""``blocks`` on a node whose addresses are all marked in Calico's blocks. Once every node says so, they claim
blocks outside of their podCIDRs; and from then on none may go back to its podCIDR by itself.
"""
BY_BLOCKS = "blocks"
LEAVING = "leaving"
"""In place of ``blocks`` on a node that is to go back: it takes no addresses but of its podCIDRs, nobody else
takes any of those, and it gives out none by podCIDR until this is taken away (``towpath ipam migrate``).
"""


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's own view, written when it changes.

    ``drift`` are the operations that would bring the kernel to the desired state, described; ``findings``
    one line each, code first; ``verified`` echoes the nonce of the last ``towpath.dev/verify`` answered;
    ``leased`` is, in block mode, how many addresses of each IPPool the node's pods have.
    """

    version: str = ""
    ready: bool = False
    pods: int = 0
    drift: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    verified: str = ""
    leased: dict[str, int] | None = None


def agent_report(node: Node) -> AgentReport | None:
    """The report on a Node, or None where there is none that can be read."""
    return annotated(node.metadata, STATUS, AgentReport)
