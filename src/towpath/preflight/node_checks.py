"""Checks of nodes and of what runs on them, as far as the API tells."""

from collections.abc import Iterator
from ipaddress import ip_network
from json import JSONDecodeError, loads

from towpath.inventory import rollout
from towpath.inventory.images import Image
from towpath.model.finding import Finding
from towpath.preflight.situation import Check, Situation, finding

_FULL = 0.95  # of a node's addresses
_RESERVED = 3  # network address, first host (flannel's old bridge), broadcast


def _complete(at: Situation) -> Iterator[Finding]:
    """What is to be upgraded is whole before it is touched."""
    yield from rollout.findings(at.inventory.components, [node.facts for node in at.inventory.nodes])
    for node in at.inventory.nodes:
        if not node.facts.ready:
            yield finding(
                "TP7313",
                f"Node/{node.facts.name}",
                "is not Ready",
                "mend it, or take it out of the cluster, before the upgrade",
            )


def _images(at: Situation) -> Iterator[Finding]:
    """9: the target's images lie on every node already: nothing is pulled while the network is down."""
    wanted = {image.name for part in at.inventory.components for image in part.wanted.values()}
    for name in sorted(wanted & at.target.images.keys()):
        tag = at.target.images[name]
        without = [node.facts.name for node in at.inventory.nodes if not _holds(node.facts.cached, name, tag)]
        if without:
            some = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
            yield finding(
                "TP7314",
                f"Image/{name}:{tag}",
                f"does not lie on {len(without)} of {len(at.inventory.nodes)} nodes: {some}",
                "pull it there before the upgrade",
                "warning",
            )


def _holds(cached: frozenset[Image], name: str, tag: str) -> bool:
    return any((image.name, image.tag) == (name, tag) for image in cached)


def addresses(at: Situation) -> Iterator[Finding]:
    """14: there are addresses left for pods that are made anew."""
    for node in at.inventory.nodes:
        for cidr in node.pod_cidrs:
            room = ip_network(cidr).num_addresses - _RESERVED
            if node.pods > room * _FULL:
                yield finding(
                    "TP7315",
                    f"Node/{node.facts.name}",
                    f"{node.pods} pods have an address of {cidr}, which has {room}",
                    "move pods away, and look for leases that nobody holds",
                )


def tunnels(at: Situation) -> Iterator[Finding]:
    """21: every node says where its tunnel ends, and no two say the same."""
    seen: dict[tuple[str, str], str] = {}
    for node in at.inventory.nodes:
        where, said = f"Node/{node.facts.name}", node.flannel
        if said.get("kube-subnet-manager") != "true":
            yield finding(
                "TP7316",
                where,
                "has no flannel annotations: peers do not send to it",
                "look at the log of its network pod",
            )
            continue
        ends = {"public-ip": said.get("public-ip"), "public-ipv6": said.get("public-ipv6")}
        for key in ("backend-data", "backend-v6-data"):
            mac = _mac(said.get(key, ""))
            if mac is None:
                yield finding(
                    "TP7317", where, f"{key} cannot be read: {said[key]!r}", "let its agent write it anew"
                )
            else:
                ends[key] = mac or None
        for key, value in ends.items():
            other = seen.setdefault((key, value), node.facts.name) if value else node.facts.name
            if other != node.facts.name:
                yield finding(
                    "TP7318",
                    where,
                    f"has the same {key} as {other}: {value}",
                    "one of the two was cloned; delete its flannel.1 and restart its network pod",
                )


def _mac(data: str) -> str | None:
    """The VTEP's MAC; empty where the backend has none, None for what cannot be read."""
    if not data or data == "null":
        return ""
    try:
        found = loads(data)
    except JSONDecodeError:
        return None
    return str(found.get("VtepMAC", "")) if isinstance(found, dict) else None


NODE_CHECKS = (
    Check(9, "the target's images lie on every node", _images),
    Check(27, "the network is whole before it is touched", _complete),
)
