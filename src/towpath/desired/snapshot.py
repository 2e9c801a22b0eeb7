"""What a node's desired state is computed from, and nothing else."""

from collections.abc import Mapping

import msgspec

from towpath.api.core import Node
from towpath.model.attachment import Attachment
from towpath.model.failsafe import DEFAULT_FAILSAFES, Failsafes
from towpath.model.net import Net
from towpath.model.network import ClusterNetwork, Underlay
from towpath.model.policy import Program


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent view: the API's nodes, this node's underlay and its attachments.

    ``nodes`` by name, this node's own included once it is known. ``underlay`` as observed; its ``on_link``
    must speak of every peer where routing is direct or host-gw. ``attachments`` must be read under the same
    lock as the kernel is observed, or the wiring of an ADD in between looks like a leftover.
    ``vtep_macs``, by overlay device, are those of existing devices, else random ones the agent keeps
    (``api.flannel.random_mac``): a MAC in this node's own annotation takes precedence.
    ``holdings``, in block mode, say which blocks and borrowed addresses are whose.
    ``policy`` as compiled for the attachments; None where there is no policy at all. ``failsafes``: what host
    endpoints' policies never close.
    """

    node_name: str
    network: ClusterNetwork
    underlay: Underlay
    nodes: dict[str, Node] = {}
    attachments: tuple[Attachment, ...] = ()
    vtep_macs: dict[str, str] = {}
    holdings: Mapping[str, tuple[Net, ...]] = {}
    policy: Program | None = None
    failsafes: Failsafes = DEFAULT_FAILSAFES
