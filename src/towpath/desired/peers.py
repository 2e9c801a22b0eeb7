"""Which other nodes are served, and in which families: those whose claims contradict nobody's."""

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from towpath.api.flannel import FAMILIES, Peer, PeerLink, parse_peer
from towpath.desired.snapshot import Snapshot
from towpath.model.finding import Finding
from towpath.model.net import Family, Net


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """By family, the peers to program, in order of their names; and what was found wrong with others."""

    links: dict[Family, dict[str, PeerLink]]
    findings: tuple[Finding, ...]


def accepted_peers(snapshot: Snapshot, own: dict[Family, PeerLink]) -> Peers:
    """All usable peers of a snapshot. ``own`` is what this node itself claims.

    Of two that claim overlapping subnets, or one MAC, one must be a stale or a forged object, and nothing
    here says which: this node's own claim stands, else the first by name, so that all nodes decide alike.
    """
    findings: list[Finding] = []
    candidates: list[Peer] = []
    for name in sorted(snapshot.nodes):
        if name == snapshot.node_name:
            continue
        peer, said = parse_peer(snapshot.nodes[name], snapshot.network)
        findings += said
        if peer is not None:
            candidates.append(peer)
    links: dict[Family, dict[str, PeerLink]] = {}
    for family in FAMILIES:
        if family in own:
            claims = _Claims(snapshot, family, own[family])
            links[family] = dict(_admit(candidates, claims, findings))
    return Peers(links=links, findings=tuple(findings))


def _admit(
    candidates: Iterable[Peer], claims: "_Claims", findings: list[Finding]
) -> Iterable[tuple[str, PeerLink]]:
    for peer in candidates:
        link = peer.links.get(claims.family)
        if link is None:
            continue
        objection = claims.objection(peer.name, link)
        if objection is None:
            yield peer.name, link
        else:
            findings.append(objection)


class _Claims:
    """Subnets and MACs that are taken, of one family."""

    def __init__(self, snapshot: Snapshot, family: Family, own: PeerLink) -> None:
        self.family = family
        self._own = own
        self._network = snapshot.network
        self._on_link = snapshot.underlay.on_link
        self._macs: dict[str, str] = {}
        self._first: list[int] = []
        self._last: list[tuple[int, str]] = []
        self._take(snapshot.node_name, own)

    def objection(self, name: str, link: PeerLink) -> Finding | None:
        """Why ``link`` cannot be served; None: it can, and what it claims is taken now."""
        found = self._foreign(name, link) or self._taken(name, link)
        if found is None:
            self._take(name, link)
        return found

    def _foreign(self, name: str, link: PeerLink) -> Finding | None:
        if link.public == self._own.public:
            message = f"its public address {link.public} is this node's own"
            fix = f"if node {name} is a former registration of this machine, delete its Node object"
            return self._finding("TP3007", name, message, fix)
        if self._network.backend == "host-gw" and link.public not in self._on_link:
            message = f"its address {link.public} is not on this node's link, and host-gw has no tunnel"
            return self._finding("TP3008", name, message, "use vxlan (with DirectRouting) across routers")
        return None

    def _taken(self, name: str, link: PeerLink) -> Finding | None:
        holder = self._holder(link.subnet)
        if holder is not None:
            message = f"its podCIDR {link.subnet} overlaps that of node {holder}"
            fix = f"delete whichever Node object of {name} and {holder} is stale"
            return self._finding("TP3005", name, message, fix)
        if link.vtep is not None and link.vtep.mac in self._macs:
            holder = self._macs[link.vtep.mac]
            message = f"its VtepMAC {link.vtep.mac} is that of node {holder}"
            fix = f"remove flannel's annotations from {name}, delete its flannel devices, restart its agent"
            return self._finding("TP3006", name, message, fix)
        return None

    def _holder(self, subnet: Net) -> str | None:
        # Taken ranges never overlap, so that the last one to begin before our end is the only candidate.
        index = bisect_right(self._first, int(subnet.broadcast_address)) - 1
        if index < 0:
            return None
        last, name = self._last[index]
        return name if last >= int(subnet.network_address) else None

    def _take(self, name: str, link: PeerLink) -> None:
        first = int(link.subnet.network_address)
        index = bisect_right(self._first, first)
        self._first.insert(index, first)
        self._last.insert(index, (int(link.subnet.broadcast_address), name))
        if link.vtep is not None:
            self._macs[link.vtep.mac] = name

    def _finding(self, code: str, name: str, message: str, fix: str) -> Finding:
        return Finding(code=code, object=f"Node/{name}", message=f"IPv{self.family}: {message}", fix=fix)
