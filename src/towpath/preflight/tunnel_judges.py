"""Tunnels of all nodes against each other: each end as its node says, and as its peers have it. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from json import JSONDecodeError, loads

from towpath.inventory.cluster import NodeState
from towpath.inventory.node_report import Tunnel
from towpath.model.finding import Finding
from towpath.preflight.situation import finding

_KINDS = (
    ("flannel.1", "backend-data", "public-ip", 50),
    ("flannel-v6.1", "backend-v6-data", "public-ipv6", 70),
)


def ends(nodes: Sequence[NodeState]) -> Iterator[Finding]:
    """21: a tunnel's MAC is what its node says, and what the neighbours have."""
    for device, data, address, _ in _KINDS:
        said = {node.facts.name: _mac(node.flannel.get(data, "")) for node in nodes}
        for node in nodes:
            tunnel = node.report.tunnel(device) if node.report else None
            mac, name = said[node.facts.name], node.facts.name
            if tunnel is None or not mac:
                if mac and node.report is not None:
                    yield finding(
                        "TP7332",
                        f"Node/{name}",
                        f"says that its {device} has {mac}, and has no {device}",
                        _FIX,
                    )
                continue
            if tunnel.mac != mac:
                yield finding(
                    "TP7332", f"Node/{name}", f"says that its {device} has {mac}; it has {tunnel.mac}", _FIX
                )
            yield from _peers(name, nodes, device, tunnel, said, address)


_FIX = "restart its network pod, which writes the annotation anew"


def _peers(
    name: str,
    nodes: Sequence[NodeState],
    device: str,
    tunnel: Tunnel,
    said: dict[str, str],
    address: str,
) -> Iterator[Finding]:
    """``name``'s forwarding entries for every other node."""
    for peer in nodes:
        mac, end = said[peer.facts.name], peer.flannel.get(address, "")
        has = tunnel.fdb.get(end)
        if peer.facts.name == name or not mac or not end or has == mac:
            continue
        # Where nodes share a segment, DirectRouting and host-gw send without the tunnel: no entry then.
        if has is not None or mac in tunnel.neighbours.values():
            told = f"its {device} sends frames for {peer.facts.name} to {has or 'nowhere'}, not to {mac}"
            yield finding("TP7333", f"Node/{name}", told, f"restart the network pod of {name}")


def shape(nodes: Sequence[NodeState]) -> Iterator[Finding]:
    """28: tunnels of one kind are of one number, port and size, and fit what they go through."""
    for device, _, _, overhead in _KINDS:
        there = {node.facts.name: node.report.tunnel(device) for node in nodes if node.report}
        tunnels = {name: tunnel for name, tunnel in there.items() if tunnel is not None}
        for what in ("vni", "port", "mtu"):
            usual = Counter(getattr(tunnel, what) for tunnel in tunnels.values()).most_common(1)
            for name, tunnel in sorted(tunnels.items()):
                has = getattr(tunnel, what)
                if usual and has != usual[0][0]:
                    yield finding(
                        "TP7335",
                        f"Node/{name}",
                        f"{device} has {what} {has}, the others have {usual[0][0]}",
                        "make the nodes' configuration and underlay alike before the upgrade",
                        "warning" if what == "mtu" else "error",
                    )
        for name, tunnel in sorted(tunnels.items()):
            if tunnel.underlay_mtu and tunnel.mtu > tunnel.underlay_mtu - overhead:
                yield finding(
                    "TP7334",
                    f"Node/{name}",
                    f"{device} has MTU {tunnel.mtu}, through an underlay of {tunnel.underlay_mtu}: "
                    f"large packets are lost; at most {tunnel.underlay_mtu - overhead} fits",
                    "set the underlay's MTU right, and restart the network pod",
                )


def _mac(data: str) -> str:
    try:
        found = loads(data) if data else None
    except JSONDecodeError:
        return ""
    return str(found.get("VtepMAC", "")) if isinstance(found, dict) else ""
