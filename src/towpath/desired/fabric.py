"""The overlay: flannel's devices, and per peer a neighbour, a forwarding entry and a route, or only that."""

from ipaddress import ip_interface

from towpath.api.flannel import PeerLink, annotations_of
from towpath.api.report import PODS_BY_WIRE, REFUSED
from towpath.desired.identity import Identity, device
from towpath.desired.mtu import overlay_mtu
from towpath.desired.ownership import beyond
from towpath.desired.peers import Peers
from towpath.desired.snapshot import Snapshot
from towpath.model.net import Address, Family, Fdb, Link, Neighbour, Route, Vxlan
from towpath.model.state import NetState


def fabric(snapshot: Snapshot, me: Identity, peers: Peers) -> NetState:
    """Devices and entries of every family that this node can serve."""
    links: dict[str, Link] = {}
    addresses: set[Address] = set()
    routes: set[Route] = set()
    neighbours: set[Neighbour] = set()
    fdb: set[Fdb] = set()
    for family, own in me.links.items():
        overlay = device(snapshot.network, family)
        if snapshot.network.backend == "vxlan":
            links[overlay] = _overlay(snapshot, me, family)
            # The subnet's network address, as /32: no broadcast and no connected route comes of it, and
            # RKE2's CIS profile admits the node by exactly this address.
            first = own.subnet.network_address
            addresses.add(Address(dev=overlay, interface=ip_interface((first, first.max_prefixlen))))
        for name, peer in peers.links[family].items():
            theirs = (peer.subnet, *beyond(name, peer.subnet, snapshot.holdings))
            if peer.vtep is None or _direct(snapshot, name, peer):
                routes |= {Route(dst=net, dev=snapshot.underlay.dev, via=peer.public) for net in theirs}
                continue
            gateway = peer.subnet.network_address
            neighbours.add(Neighbour(dev=overlay, addr=gateway, mac=peer.vtep.mac))
            fdb.add(Fdb(dev=overlay, mac=peer.vtep.mac, dst=peer.public))
            routes |= {Route(dst=net, dev=overlay, via=gateway, onlink=True) for net in theirs}
    return NetState(
        links=links,
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        neighbours=frozenset(neighbours),
        fdb=frozenset(fdb),
        sysctls={f"net/ipv6/conf/{name}/accept_ra": "0" for name in links},
    )


def _overlay(snapshot: Snapshot, me: Identity, family: Family) -> Link:
    network, vtep = snapshot.network, me.links[family].vtep
    kind = Vxlan(
        vni=network.vni,
        port=network.port,
        local=me.local[family],
        underlay=snapshot.underlay.dev,
        learning=network.learning,
        gbp=network.gbp,
    )
    return Link(
        name=device(network, family),
        kind=kind,
        mtu=overlay_mtu(network, snapshot.underlay, family),
        mac=vtep.mac if vtep is not None else None,
    )


def _direct(snapshot: Snapshot, name: str, peer: PeerLink) -> bool:
    possible = snapshot.network.direct_routing and peer.public in snapshot.underlay.on_link
    return possible and annotations_of(snapshot.nodes[name]).get(PODS_BY_WIRE) != REFUSED
