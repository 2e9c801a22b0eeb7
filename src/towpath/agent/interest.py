"""Which events are worth a look. Most are not: Nodes send heartbeats, neighbours come and go."""

from collections.abc import Callable, Collection
from typing import Any

from towpath.api.core import Node
from towpath.api.flannel import PREFIX, annotations_of
from towpath.api.report import PODS_BY_WIRE, VERIFY
from towpath.desired.names import POD_PREFIX
from towpath.desired.ruleset import TABLE
from towpath.kernel.watch import Kind

_SHAPER_PREFIX = "tpb"
_FLANNEL = 2  # where ``relevant_to`` has the annotations
# Among a few nodes nobody waits; seconds for each node more, and at most.
_FEW, _WAIT_EACH, _LONGEST_WAIT = 10, 0.05, 2.0


def relevant_to(node: Node, *, own: bool) -> tuple[Any, ...]:
    """All of a Node that the kernel's desired state may depend on, to be compared with what it was."""
    notes = annotations_of(node)
    flannel = tuple(sorted(item for item in notes.items() if item[0].startswith(PREFIX)))
    by_wire = notes.get(PODS_BY_WIRE, "")
    common = (node.spec.pod_cidr, tuple(node.spec.pod_cidrs or ()), flannel, by_wire)
    if not own:
        return common
    addresses = tuple((a.type, a.address) for a in node.status.addresses or ())
    return (*common, addresses, notes.get(VERIFY, ""))


def joins(before: tuple[Any, ...] | None, now: tuple[Any, ...] | None) -> bool:
    """Whether another node is a peer from now on, by ``relevant_to``: it says how it is reached."""
    return bool(now and now[_FLANNEL]) and not (before and before[_FLANNEL])


class Joining:
    """When peers that are new are taken up: one at once, those of a storm together.

    Each costs a comparison of everything, on every node: fifty nodes that come within half a minute cost
    each of them as much as all else it does then. What changes of a peer that is known never waits.
    ``clock`` in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._due = clock, float("-inf")

    def delay(self, nodes: int) -> float:
        """Seconds from now, for a peer of so many nodes."""
        now = self._clock()
        if self._due <= now:
            self._due = max(now, self._due + min(_LONGEST_WAIT, _WAIT_EACH * max(0, nodes - _FEW)))
        return self._due - now


def relevant_link_event(kind: Kind, name: str, devices: Collection[str]) -> bool:
    """Whether a change in the kernel may concern us; ``devices`` are overlay and underlay."""
    match kind:
        case "overrun":
            return True
        case "nft" | "flushed":
            return name == TABLE
        case "address":
            return not name.startswith(POD_PREFIX)  # the underlay may be another from now on
        case "route" | "sysctl" if not name:
            return True
    return name in devices or name.startswith((POD_PREFIX, _SHAPER_PREFIX))
