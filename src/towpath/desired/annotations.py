"""What this node tells flannel's peers, and the API, about itself."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from towpath.api.core import Node
from towpath.api.flannel import (
    BACKEND_DATA,
    BACKEND_TYPE,
    MANAGED,
    PUBLIC_IP,
    annotations_of,
    format_vtep,
)
from towpath.api.report import PODS_BY_WIRE
from towpath.desired.identity import own_identity
from towpath.desired.protection import by_wire
from towpath.desired.snapshot import Snapshot

# Tools and people match on these words.
_REASON = "FlannelIsUp"
_MESSAGE = "Flannel is running on this node"


def own_annotations(snapshot: Snapshot) -> dict[str, str]:
    """flannel's annotations as flanneld would write them, and whether pods' packets are taken off the wire;
    empty while this node cannot be served at all.

    Both families change in one patch: a flanneld peer ignores an update in which either is unchanged (still
    in 0.28.9), so that MAC and address are kept for as long as possible and never changed by halves.
    """
    me = own_identity(snapshot)
    network = snapshot.network
    if not me.links:
        return {}
    notes = {BACKEND_TYPE: network.backend, MANAGED: "true", PODS_BY_WIRE: by_wire(network)}
    for family, link in me.links.items():
        if network.backend == "vxlan" and link.vtep is None:
            return {}
        data = format_vtep(network.vni, link.vtep.mac) if link.vtep is not None else "null"
        notes |= {BACKEND_DATA[family]: data, PUBLIC_IP[family]: str(link.public)}
    if network.backend == "host-gw" and 4 not in me.links:
        # A family that is off still has its zero value there.
        notes |= {BACKEND_DATA[4]: "null", PUBLIC_IP[4]: "0.0.0.0"}  # noqa: S104 - an annotation, not a bind
    return notes


def node_patch(
    node: Node, annotations: Mapping[str, str], now: datetime, *, network_up: bool
) -> dict[str, Any] | None:
    """Strategic merge patch for ``nodes/status``; None where the Node already says all of it.

    ``network_up`` sets NetworkUnavailable to False, once: Canal's Calico leaves that condition to flannel,
    and nobody ever sets it back. ``now`` must know its time zone.
    """
    have = annotations_of(node)
    changed = {key: value for key, value in annotations.items() if have.get(key) != value}
    patch: dict[str, Any] = {"metadata": {"annotations": changed}} if changed else {}
    if network_up and not _said(node):
        stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {
            "type": "NetworkUnavailable",
            "status": "False",
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
            "reason": _REASON,
            "message": _MESSAGE,
        }
        patch["status"] = {"conditions": [condition]}
    return patch or None


def _said(node: Node) -> bool:
    conditions = node.status.conditions or []
    return any((c.type, c.status, c.reason) == ("NetworkUnavailable", "False", _REASON) for c in conditions)
