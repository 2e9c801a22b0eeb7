"""What decides of one packet, as the compiled policies have it: for logs, and for flows that go on.

``evaluate`` answers the same from the policies themselves, and looks at all endpoints for it. This looks at
those rules only among whose peers the packet's other side is.
"""

from typing import NamedTuple

import msgspec

from towpath.model.net import Addr, Family
from towpath.policy.cells import Decisions
from towpath.policy.facts import Traits
from towpath.policy.ir import Direction


class Packet(NamedTuple):
    """The first of a flow, after destination NAT: from the endpoint's own address to the peer's, or back.

    ``first`` and ``second``: source and destination port, or ICMP's type and code.
    """

    own: Addr
    peer: Addr
    protocol: int
    first: int = 0
    second: int = 0

    @property
    def family(self) -> Family:
        """That of both addresses."""
        return 4 if self.own.version == 4 else 6


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, by ``policy``, its ``path`` in the object and its ``index`` among the direction's; or without
    one the default of ``tier``, in which ``policies`` apply (some, if many); or no tier's. ``host``: the host
    endpoint that was asked, empty where a pod was.
    """

    allowed: bool
    tier: str = ""
    policy: str = ""
    path: str = ""
    index: int = -1
    policies: tuple[str, ...] = ()
    host: str = ""


class LogRule(msgspec.Struct, frozen=True):
    """A rule that logs."""

    tier: str
    policy: str
    direction: Direction
    path: str
    index: int


def cause(decisions: Decisions, packet: Packet, peer: Traits | None) -> Cause:
    """What decides of a packet whose other side has these traits. Left to others is allowed."""
    for tier, clause in decisions.deciding(packet.family, peer, packet.protocol, packet.first, packet.second):
        if clause is not None and clause.action != "pass":
            return Cause(
                allowed=clause.action == "allow",
                tier=tier.name,
                policy=clause.rules.policy,
                path=clause.rule.path,
                index=clause.index,
            )
        if clause is None and tier.default != "pass" and not decisions.lenient:
            return Cause(allowed=tier.default == "allow", tier=tier.name)
    return Cause(allowed=decisions.lenient or bool(decisions.unmatched))
