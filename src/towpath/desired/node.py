"""The desired state of one node: in a cluster from a snapshot of it, else from its containers alone."""

import msgspec

from towpath.api.flannel import FAMILIES
from towpath.desired.fabric import fabric
from towpath.desired.hostports import conflicts
from towpath.desired.identity import Identity, device, own_identity
from towpath.desired.mtu import mtu_findings
from towpath.desired.names import POD_PREFIX
from towpath.desired.ownership import parts
from towpath.desired.peers import accepted_peers
from towpath.desired.pods import standing
from towpath.desired.protection import peering
from towpath.desired.ruleset import ruleset
from towpath.desired.snapshot import Snapshot
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.network import ClusterNetwork
from towpath.model.state import NetState, Scope


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What should be, what of the rest may be deleted, and what is wrong with the input."""

    state: NetState
    scope: Scope
    findings: tuple[Finding, ...]


def node_state(snapshot: Snapshot) -> Desired:
    """Everything this node should hold. A pure function: equal snapshots give equal states.

    Fails static: of a family this node's part in is unknown (no Node object, no podCIDR, no address), nothing
    is desired and nothing in scope, and with all of them unknown the firewall is left as it is. An API server
    that forgets a Node does not thereby cut off its pods.
    """
    me = own_identity(snapshot)
    peers = accepted_peers(snapshot, me.links)
    state = fabric(snapshot, me, peers).merge(NetState(sysctls=_forwarding(snapshot.network)))
    state = _with_pods(state, snapshot.attachments)
    if me.links:
        local = [
            net
            for link in me.links.values()
            for net in parts(snapshot.node_name, link.subnet, snapshot.holdings)
        ]
        ends = peering(snapshot, me, peers)
        table = ruleset(
            snapshot.network, local, snapshot.attachments, snapshot.policy, ends, snapshot.failsafes
        )
        state = state.merge(NetState(nft=table))
    findings = (
        *me.findings,
        *mtu_findings(snapshot.network, snapshot.underlay, snapshot.node_name),
        *peers.findings,
        *_port_findings(snapshot.attachments),
    )
    return Desired(state=state, scope=_scope(snapshot, me), findings=findings)


def standalone_state(network: ClusterNetwork, attachments: tuple[Attachment, ...]) -> Desired:
    """Everything a host without a cluster should hold: its containers' links and the firewall.

    ``network`` are the networks its containers' addresses come from, all of them here. There is no overlay,
    and if somebody has made one, it is theirs.
    """
    state = _with_pods(NetState(sysctls=_forwarding(network)), attachments)
    state = state.merge(NetState(nft=ruleset(network, network.networks, attachments)))
    scope = Scope(devices=frozenset(), pod_prefix=POD_PREFIX, networks=frozenset())
    return Desired(state=state, scope=scope, findings=_port_findings(attachments))


def _with_pods(state: NetState, attachments: tuple[Attachment, ...]) -> NetState:
    pods = [standing(att) for att in attachments]
    return NetState(
        links={**state.links, **{n: link for pod in pods for n, link in pod.links.items()}},
        addresses=state.addresses.union(*(pod.addresses for pod in pods)),
        routes=state.routes.union(*(pod.routes for pod in pods)),
        neighbours=state.neighbours.union(*(pod.neighbours for pod in pods)),
        fdb=state.fdb,
        shapers=state.shapers.union(*(pod.shapers for pod in pods)),
        redirects=state.redirects.union(*(pod.redirects for pod in pods)),
        sysctls={**state.sysctls, **{k: v for pod in pods for k, v in pod.sysctls.items()}},
    )


def _forwarding(network: ClusterNetwork) -> dict[str, str]:
    sysctls = {}
    if network.ipv4 is not None:
        sysctls["net/ipv4/ip_forward"] = "1"
    if network.ipv6 is not None:
        sysctls["net/ipv6/conf/all/forwarding"] = "1"
    return sysctls


def _scope(snapshot: Snapshot, me: Identity) -> Scope:
    """Devices and networks of the families we serve, and the devices of those that are off."""
    network = snapshot.network
    on = {net.version for net in network.networks}
    certain = [family for family in FAMILIES if family in me.links or family not in on]
    return Scope(
        devices=frozenset(device(network, family) for family in certain),
        pod_prefix=POD_PREFIX,
        networks=frozenset(net for net in network.networks if net.version in me.links),
    )


def _port_findings(attachments: tuple[Attachment, ...]) -> tuple[Finding, ...]:
    found = []
    for holder, loser, key in conflicts(attachments):
        names = [f"{a.pod.namespace}/{a.pod.name}" if a.pod else a.container_id[:12] for a in (holder, loser)]
        found.append(
            Finding(
                code="TP3015",
                object=f"Pod/{names[1]}",
                message=f"host port {' '.join(str(field) for field in key)} is held by pod {names[0]}",
                fix="give one of them another host port",
            )
        )
    return tuple(found)
