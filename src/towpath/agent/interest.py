"""Which events are worth a look. Most are not: Nodes send heartbeats, neighbours come and go."""

from collections.abc import Collection
from typing import Any

from towpath.api.core import Node
from towpath.api.flannel import PREFIX, annotations_of
from towpath.api.report import PODS_BY_WIRE, VERIFY
from towpath.desired.names import POD_PREFIX
from towpath.desired.ruleset import TABLE
from towpath.kernel.watch import Kind

_SHAPER_PREFIX = "tpb"


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
