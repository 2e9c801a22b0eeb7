"""Which host endpoints a flow passes on its way through the nodes of its pods, as far as objects tell.

A node forwards what its pods send and get. Three kinds of interfaces are told apart: a pod's; the tunnel to
other nodes, by which their pods and they themselves reach pods (no host endpoint stands there but ``*``, or
one that names a ``flannel`` interface); the uplink, by which all else comes and goes. A host endpoint that
names any other interface, or an address, stands at the uplink. Where a node has several and one has an
address of the node's, that is the uplink; else all are passed, which errs on the side of "denied". Where
nodes route to each other's pods directly there is no tunnel; where only those do that share a link, which no
object tells, both the tunnel and the uplink are passed, for the same reason.

Not told, since no object does: routes beside these. A node's own traffic to its pods passes nothing; its
pods' to it is asked about before DNAT, where nobody knows yet that it stays.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from towpath.policy.host_places import ALL_INTERFACES
from towpath.policy.ir import KIND, Aspect, Direction, Endpoint, Routing, World

Interface = Literal["pod", "tunnel", "uplink"]
End = Literal["own", "here", "pod elsewhere", "node elsewhere", "outside"]
"""An end of a flow, seen from a node: itself, one of its pods, another's, another node, anything else."""
ENDS: tuple[End, ...] = ("own", "here", "pod elsewhere", "node elsewhere", "outside")

_TUNNEL = "flannel"
_BETWEEN_NODES: dict[Routing, tuple[Interface, ...]] = {
    "tunnel": ("tunnel",),
    "direct": ("uplink",),
    "either": ("tunnel", "uplink"),
}


class Passage(NamedTuple):
    """A host endpoint that is asked about what it does not begin or end, and where it is asked, in order."""

    endpoint: Endpoint
    direction: Direction
    aspects: tuple[Aspect, ...]


def passages(world: World, node: str, source: End, destination: End) -> Iterator[Passage]:
    """Those of what goes between such ends by way of ``node``: one of them is one of its pods."""
    if source == "own" or "here" not in (source, destination):
        return
    entering = _standing(world, node, _interfaces(world, source))
    if destination == "own":
        for endpoint in entering:
            yield Passage(endpoint, "ingress", ("pre-dnat",))
        return
    # Nothing of pods' is asked about before tracking.
    before: tuple[Aspect, ...] = ("pre-dnat",) if source == "here" else ("untracked", "pre-dnat")
    for endpoint in entering:
        yield Passage(endpoint, "ingress", (*before, "forwarded"))
    # What goes to nodes themselves is for their own addresses, and takes no tunnel.
    leaving = ("uplink",) if destination == "node elsewhere" else _interfaces(world, destination)
    for endpoint in _standing(world, node, leaving):
        yield Passage(endpoint, "egress", ("forwarded",))


def host_nodes(world: World) -> list[str]:
    """Nodes that have host endpoints."""
    hosts = (one for one in world.endpoints if one.labels.get(KIND) == "hostendpoint")
    return list(dict.fromkeys(one.node for one in hosts if one.node))


def seen_from(node: str, endpoints: Iterable[Endpoint]) -> End:
    """What an address is that these endpoints have."""
    found: End = "outside"
    for one in endpoints:
        kind = one.labels.get(KIND)
        if kind == "pod":
            if one.node == node or found != "here":
                found = "here" if one.node == node else "pod elsewhere"
        elif one.name == f"Node/{node}" or (kind == "hostendpoint" and one.node == node):
            return "own"
        elif found == "outside":
            found = "node elsewhere"
    return found


def _interfaces(world: World, source: End) -> tuple[Interface, ...]:
    """By which what is sent from there comes; what goes to pods and to the outside leaves by it too."""
    if source == "here":
        return ("pod",)
    return ("uplink",) if source == "outside" else _BETWEEN_NODES[world.routing]


def _standing(world: World, node: str, interfaces: Iterable[Interface]) -> list[Endpoint]:
    """The host endpoints at any of these, each once."""
    found = (one for interface in interfaces for one in _at(world, node, interface))
    return list({one.name: one for one in found}.values())


def _at(world: World, node: str, interface: Interface) -> list[Endpoint]:
    """The host endpoints that stand at one; of several by one name the first counts."""
    by_interface: dict[object, Endpoint] = {}
    for one in sorted(world.endpoints, key=lambda one: one.name):
        if one.labels.get(KIND) == "hostendpoint" and one.node == node:
            by_interface.setdefault(one.interface or one.addresses, one)
    general = by_interface.pop(ALL_INTERFACES, None)
    if interface != "pod":
        tunnel = interface == "tunnel"
        named = [one for one in by_interface.values() if one.interface.startswith(_TUNNEL) == tunnel]
        if named:
            own = {a for one in world.endpoints if one.name == f"Node/{node}" for a in one.addresses}
            return [one for one in named if own & {*one.addresses}] or named
    return [general] if general is not None else []
