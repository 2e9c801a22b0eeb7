"""From what is known to what this node should hold: in a cluster by the API's Nodes, else by settings."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from towpath.agent.ipvs import ipvs_findings, virtual_services
from towpath.agent.underlay import UnderlayUnknown, discover, on_link
from towpath.api.core import Node
from towpath.api.flannel import FAMILIES, parse_peer, random_mac
from towpath.desired.identity import device, own_identity
from towpath.desired.mtu import pod_mtu
from towpath.desired.node import Desired, node_state, standalone_state
from towpath.desired.ownership import Holdings
from towpath.desired.snapshot import Snapshot
from towpath.model.attachment import Attachment
from towpath.model.failsafe import DEFAULT_FAILSAFES, Failsafes
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net, Vxlan
from towpath.model.network import ClusterNetwork, Underlay
from towpath.model.nft import NftTable
from towpath.model.policy import Program
from towpath.model.state import NetState

_ETHERNET_MTU = 1500


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the node should hold, and what that means for pods to come.

    ``pod_cidrs`` is where their addresses come from, empty for reasons told by ``blocked``; ``pod_mtu`` the
    MTU of their links. ``watched`` are devices that, besides pods' links, matter. ``snapshot`` is what it
    all was computed from, None outside a cluster.
    """

    desired: Desired
    attachments: tuple[Attachment, ...]
    pod_cidrs: tuple[Net, ...]
    pod_mtu: int
    blocked: tuple[Finding, ...] = ()
    watched: frozenset[str] = frozenset()
    snapshot: Snapshot | None = None


class Planner(Protocol):
    """Says what this node should hold."""

    def plan(
        self, observed: NetState, attachments: tuple[Attachment, ...]
    ) -> tuple[Plan | None, tuple[Finding, ...]]:
        """The plan, None while too little is known; and what is to be said about the input."""
        ...


class StandalonePlanner:
    """A host without a cluster: ``network`` are its containers' networks."""

    def __init__(self, network: ClusterNetwork) -> None:
        self._network = network

    def plan(
        self, observed: NetState, attachments: tuple[Attachment, ...]
    ) -> tuple[Plan | None, tuple[Finding, ...]]:
        """Always known."""
        desired = standalone_state(self._network, attachments)
        plan = Plan(
            desired=desired,
            attachments=attachments,
            pod_cidrs=self._network.networks,
            pod_mtu=self._network.pod_mtu or _way_out(observed),
        )
        return plan, desired.findings


class ClusterPlanner:
    """A node of a cluster. ``nodes`` gives the Nodes by name, as the API has them now; ``policy`` what policy
    means for these attachments and this host's addresses, None while that is not known; ``holdings`` which
    blocks are whose.
    """

    def __init__(
        self,
        network: ClusterNetwork,
        node_name: str,
        iface: str,
        nodes: Callable[[], Mapping[str, Node]],
        policy: Callable[[tuple[Attachment, ...], Mapping[Addr, str], NftTable | None], Program | None],
        failsafes: Failsafes = DEFAULT_FAILSAFES,
        holdings: Callable[[], Holdings] = dict,
    ) -> None:
        self._failsafes, self._holdings = failsafes, holdings
        self._network, self._node_name, self._iface = network, node_name, iface
        self._nodes, self._policy = nodes, policy
        self._macs: dict[str, str] = {}
        self._underlay: Underlay | None = None

    def plan(
        self, observed: NetState, attachments: tuple[Attachment, ...]
    ) -> tuple[Plan | None, tuple[Finding, ...]]:
        """None while this node's place in the network, or its policy, cannot be told."""
        nodes = dict(self._nodes())
        addresses = {a.interface.ip: a.dev for a in observed.addresses}
        policy = self._policy(attachments, addresses, observed.nft)
        if policy is None:
            return None, ()
        underlay, findings = self._find_underlay(nodes, observed)
        if underlay is None:
            return None, findings
        snapshot = Snapshot(
            node_name=self._node_name,
            network=self._network,
            nodes=nodes,
            underlay=underlay,
            attachments=attachments,
            vtep_macs=self._vtep_macs(observed),
            policy=policy,
            failsafes=self._failsafes,
            holdings=self._holdings(),
        )
        desired, me = node_state(snapshot), own_identity(snapshot)
        plan = Plan(
            desired=desired,
            attachments=attachments,
            pod_cidrs=tuple(link.subnet for link in me.links.values()),
            pod_mtu=pod_mtu(self._network, underlay),
            blocked=me.findings,
            watched=desired.scope.devices | {underlay.dev},
            snapshot=snapshot,
        )
        passed_by = ipvs_findings(self._node_name, observed.links.keys(), virtual_services())
        return plan, (*findings, *desired.findings, *passed_by)

    def _find_underlay(
        self, nodes: Mapping[str, Node], observed: NetState
    ) -> tuple[Underlay | None, tuple[Finding, ...]]:
        """The underlay; the last known one while a new answer would be worse than none.

        A NIC that loses its address for a moment must not move the tunnels of a whole node.
        """
        node = nodes.get(self._node_name)
        findings: tuple[Finding, ...] = ()
        fresh: Underlay | None = None
        if node is not None:
            try:
                fresh, findings = discover(node, observed, self._network, self._iface)
            except UnderlayUnknown as e:
                findings = (e.finding,)
        last = self._underlay
        if last is not None and last.dev in observed.links and (fresh is None or findings):
            fresh = _as_it_is_now(last, node, observed, self._network)
        if fresh is None:
            return None, findings or (_unknown(self._node_name),)
        if self._network.direct_routing or self._network.backend == "host-gw":
            fresh = msgspec.structs.replace(fresh, on_link=self._on_link(nodes, observed))
        self._underlay = fresh
        return fresh, findings

    def _on_link(self, nodes: Mapping[str, Node], observed: NetState) -> frozenset[Addr]:
        peers = (parse_peer(node, self._network)[0] for node in nodes.values())
        addresses = [link.public for peer in peers if peer is not None for link in peer.links.values()]
        return on_link(addresses, observed)

    def _vtep_macs(self, observed: NetState) -> dict[str, str]:
        """Of existing devices their own, else made up once and kept."""
        for family in FAMILIES:
            name = device(self._network, family)
            link = observed.links.get(name)
            if link is not None and isinstance(link.kind, Vxlan) and link.mac:
                same = (link.kind.vni, link.kind.port) == (self._network.vni, self._network.port)
                if same:  # else it is somebody else's that has only the name
                    self._macs[name] = link.mac
            self._macs.setdefault(name, random_mac(os.urandom(6)))
        return dict(self._macs)


def _as_it_is_now(last: Underlay, node: Node | None, observed: NetState, network: ClusterNetwork) -> Underlay:
    """The last known underlay, with another address where its device has another in place of the known one.

    So it is when a lease of DHCP brings a new address and the kubelet has not told yet. An address that is
    merely gone stays in use: it may come back.
    """
    changes: dict[str, Any] = {"mtu": observed.links[last.dev].mtu}
    here = {a.interface.ip for a in observed.addresses if a.dev == last.dev}
    if node is not None and not {last.ipv4, last.ipv6} - {None} <= here:
        with suppress(UnderlayUnknown):
            now, _ = discover(node, observed, network, iface=last.dev)
            for name in ("ipv4", "ipv6"):
                if getattr(last, name) not in here and getattr(now, name) is not None:
                    changes[name] = getattr(now, name)
    return msgspec.structs.replace(last, **changes)


def _way_out(observed: NetState) -> int:
    """The least MTU of the devices of default routes; Ethernet's where there is none."""
    ways = {r.dev for r in observed.routes if r.dst.prefixlen == 0 and r.dev in observed.links}
    return min((observed.links[dev].mtu for dev in ways), default=_ETHERNET_MTU) or _ETHERNET_MTU


def _unknown(node_name: str) -> Finding:
    return Finding(
        code="TP3010",
        object=f"Node/{node_name}",
        message="is not known to the API server",
        fix="see that the kubelet has registered the node under this name, or correct node_name",
    )
