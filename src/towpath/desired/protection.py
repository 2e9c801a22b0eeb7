"""What keeps others from speaking in the name of nodes and pods: the ends of tunnels, and whence pods come.

A VXLAN frame is believed whoever sends it, so the port is open to peers only; and since peers believe us, no
pod may send there, as its packet would go out masqueraded, in our name. Pods of other nodes come by the
overlay, or by the wire from peers that may be reached without it; anywhere else their addresses are forged.
Where nothing is masqueraded pods' addresses are rightly seen on the wire as well (what they send to another
node), and then only this node's own pods are known not to come from there.

And what keeps packets to nobody from wandering: for an address of this node's that no pod has, only a shorter
route is left: to the gateway outside or, where the node's block is in another's podCIDR, to that node, which
sends it back until its hops are used up. Dropped and not refused, as by Calico's blackhole: where a pod's
route is missing for a moment, a connection that is tried again succeeds.
"""

import msgspec

from towpath.api.flannel import PUBLIC_IP_OVERWRITE, annotations_of
from towpath.api.report import ACCEPTED, PODS_BY_WIRE, REFUSED
from towpath.api.text import parse_address
from towpath.desired.identity import Identity, device
from towpath.desired.names import POD_PREFIX
from towpath.desired.ownership import parts
from towpath.desired.peers import Peers
from towpath.desired.snapshot import Snapshot
from towpath.model.net import Addr, Family, Net
from towpath.model.network import ClusterNetwork
from towpath.model.nft import Key, NftChain, NftSet

SETS = (
    NftSet(name="peer4", key=("ipv4_addr",)),
    NftSet(name="peer6", key=("ipv6_addr",)),
    NftSet(name="vtep4", key=("ipv4_addr",)),
    NftSet(name="vtep6", key=("ipv6_addr",)),
    NftSet(name="direct4", key=("ipv4_addr",), interval=True),
    NftSet(name="direct6", key=("ipv6_addr",), interval=True),
    NftSet(name="away", key=("ifname",)),
)
_POD = f'"{POD_PREFIX}*"'
_FAMILIES: tuple[tuple[str, Family], ...] = (("ip", 4), ("ip6", 6))


class Peering(msgspec.Struct, frozen=True, kw_only=True):
    """What peers may do. ``tunnels``: where their tunnel packets come from; ``vteps``: their own addresses,
    and this node's, inside the overlay; ``direct``: the pods' networks of those that may do without it.
    ``away``: the devices that lead to other nodes.
    """

    tunnels: frozenset[Addr] = frozenset()
    vteps: frozenset[Addr] = frozenset()
    direct: frozenset[Net] = frozenset()
    away: frozenset[str] = frozenset()


def by_wire(network: ClusterNetwork) -> str:
    """What this node says of packets of other nodes' pods that come without a tunnel."""
    refuses = network.backend == "vxlan" and not network.direct_routing and network.masquerade
    return REFUSED if refuses else ACCEPTED


def peering(snapshot: Snapshot, me: Identity, peers: Peers) -> Peering:
    """Of the accepted peers.

    Refused are the pods of peers off our link once this node has said that it does so, and if they are known
    to mind: a peer without such an annotation (flanneld, an older Towpath) may have DirectRouting on already,
    or still, and send as it likes.
    """
    refusing = _says(snapshot, snapshot.node_name) == REFUSED
    tunnels: set[Addr] = set()
    vteps = {link.subnet.network_address for link in me.links.values()}
    direct: set[Net] = set()
    for family, links in peers.links.items():
        for name, peer in links.items():
            tunnels |= {peer.public, *_behind(snapshot, name, family)}
            vteps.add(peer.subnet.network_address)
            minds = refusing and _says(snapshot, name)
            if not minds or peer.public in snapshot.underlay.on_link:
                direct.update(parts(name, peer.subnet, snapshot.holdings))
    away = {snapshot.underlay.dev}
    if snapshot.network.backend == "vxlan":
        away |= {device(snapshot.network, family) for family in me.links}
    return Peering(
        tunnels=frozenset(tunnels), vteps=frozenset(vteps), direct=frozenset(direct), away=frozenset(away)
    )


def _says(snapshot: Snapshot, name: str) -> str:
    return annotations_of(snapshot.nodes[name]).get(PODS_BY_WIRE, "")


def _behind(snapshot: Snapshot, name: str, family: Family) -> set[Addr]:
    """Whoever has told others another address than its own may be seen with either."""
    node = snapshot.nodes[name]
    if PUBLIC_IP_OVERWRITE[family] not in annotations_of(node):
        return set()
    found: set[Addr] = set()
    for address in node.status.addresses or ():
        if address.type in ("InternalIP", "ExternalIP"):
            try:
                found.add(parse_address(address.address, family))
            except ValueError:
                continue  # of the other family
    return found


def elements(peering: Peering) -> dict[str, dict[Key, Key]]:
    """What is in ``SETS``."""
    found: dict[str, dict[Key, Key]] = {decl.name: {} for decl in SETS}
    for kind, members in (("peer", peering.tunnels), ("vtep", peering.vteps), ("direct", peering.direct)):
        for member in members:
            found[f"{kind}{member.version}"][(member,)] = ()
    found["away"] = {(dev,): () for dev in peering.away}
    return found


def before_judging(network: ClusterNetwork) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rules of the chains ``input`` and ``forward`` for the first packets of flows, before pods' policies.

    What only passes through, from one wire to another, is for those to judge where it ends.
    """
    port = f"udp dport {network.port}"
    tunnelled = network.backend == "vxlan"
    incoming = (f"{port} jump tunnel",) if tunnelled else ()
    forwarded = (f"{port} jump to_tunnel", f"oifname {_overlay(network)} jump origin") if tunnelled else ()
    forwarded = (*forwarded, f"oifname {_POD} jump origin", "oifname @away jump stray")
    return (*incoming, "jump origin"), forwarded


def chains(network: ClusterNetwork) -> dict[str, NftChain]:
    """The chains those rules call, and what only a backend without tunnels does not."""
    tunnel = [f"{ip} saddr != @peer{v} counter drop" for ip, v in _FAMILIES]
    # A service that leads to a node's port would have the sender's node, or another, vouch for the frame.
    to_tunnel = [f"ct status dnat {ip} daddr @peer{v} counter drop" for ip, v in _FAMILIES]
    to_tunnel.append(f"iifname != {_POD} return")
    to_tunnel += [f"{ip} daddr @vtep{v} counter drop" for ip, v in _FAMILIES]
    # Pods may well have overlays among themselves.
    to_tunnel += [f"{ip} daddr != @net{v} counter drop" for ip, v in _FAMILIES]
    origin = ['iifname "lo" return', f"iifname {_POD} return"]
    origin += [f"{ip} saddr @local{v} counter drop" for ip, v in _FAMILIES]
    if network.masquerade:
        if network.backend == "vxlan":
            origin.append(f"iifname {_overlay(network)} return")
        origin += [f"{ip} saddr @net{v} {ip} saddr != @direct{v} counter drop" for ip, v in _FAMILIES]
    stray = [f"{ip} daddr @local{v} counter drop" for ip, v in _FAMILIES]
    made = {"tunnel": tunnel, "to_tunnel": to_tunnel, "origin": origin, "stray": stray}
    return {name: NftChain(name=name, rules=tuple(rules)) for name, rules in made.items()}


def _overlay(network: ClusterNetwork) -> str:
    return f'{{ "{device(network, 4)}", "{device(network, 6)}" }}'
