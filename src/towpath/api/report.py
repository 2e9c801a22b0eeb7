"""What each agent says of itself: the Node annotations ``towpath.dev/status`` and ``towpath.dev/verify``.

An annotation reaches every cluster the same way: no port to open, no proxy to trust, readable with kubectl.
"""

import msgspec

from towpath.api.core import Node

STATUS = "towpath.dev/status"
VERIFY = "towpath.dev/verify"


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's own view, written when it changes.

    ``drift`` are the operations that would bring the kernel to the desired state, described; ``findings``
    one line each, code first; ``verified`` echoes the nonce of the last ``towpath.dev/verify`` answered.
    """

    version: str = ""
    ready: bool = False
    pods: int = 0
    drift: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    verified: str = ""


def agent_report(node: Node) -> AgentReport | None:
    """The report on a Node, or None where there is none that can be read."""
    text = (node.metadata.annotations or {}).get(STATUS, "")
    try:
        return msgspec.json.decode(text, type=AgentReport) if text else None
    except msgspec.DecodeError:
        return None
