"""Which probes run where: from what was found in the cluster to one plan a prober. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Literal

import msgspec

from towpath.probe.plan import PERIODS, TIMEOUTS, Kind, Plan, Probe, spread

SAME_NODE, CROSS_NODE = "pod → pod, same node", "pod → pod, cross node"
SECONDARY = "pod → pod, secondary network"
SERVICE, OUTSIDE, CLUSTER_DNS = "pod → service", "pod → outside, SNAT", "pod → cluster DNS"
TO_NODE = "pod → another node, SNAT"
FROM_NODE = "node → pod"
HOST_PORT, NODE_PORT = "outside → hostPort", "outside → NodePort"
NODE_HOST_PORT, NODE_NODE_PORT = "node → hostPort", "node → NodePort"
PATHS = (
    SAME_NODE,
    CROSS_NODE,
    SECONDARY,
    SERVICE,
    OUTSIDE,
    TO_NODE,
    CLUSTER_DNS,
    HOST_PORT,
    NODE_PORT,
    NODE_HOST_PORT,
    NODE_NODE_PORT,
    FROM_NODE,
)  # in the order of reports

# The target's ports: echo on TCP and UDP, a small resolver, and one that a NetworkPolicy closes.
ECHO_PORT, DNS_PORT, DENIED_PORT = 7001, 7053, 7009
HOST_PORT_OFFSET, HOST_TARGET_OFFSET = 20000, 10000
NAME = "kubernetes.default.svc.cluster.local"

_EVERY = tuple(Kind)
_ALLOWED = tuple(kind for kind in Kind if not kind.denied)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses in the cluster, as text. ``targets`` and ``nodes`` by node; ``node_ports`` by target port
    and "TCP" or "UDP"; ``host_targets``: nodes with a target on the host's network; ``outside`` none where
    there is no host outside of ours; ``dns`` of the cluster's DNS service; ``secondary``: the targets' in the
    run's own network, by node."""

    targets: Mapping[str, tuple[str, ...]]
    nodes: Mapping[str, tuple[str, ...]]
    service: tuple[str, ...] = ()
    node_ports: Mapping[str, int] = {}
    host_targets: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    secondary: Mapping[str, tuple[str, ...]] = {}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it. ``origins`` are the nodes that probe; ``slower`` stretches every period."""

    origins: tuple[str, ...]
    seconds: float
    slower: float = 1.0
    kinds: tuple[Kind, ...] = _EVERY
    families: tuple[Literal[4, 6], ...] = (4, 6)


Place = tuple[Literal["pod", "node", "outside"], str]


class _Ask(msgspec.Struct, frozen=True):
    place: Place
    path: str
    address: str
    ports: Mapping[Kind, int]


def plans(found: Found, wanted: Wanted) -> dict[Place, Plan]:
    """One plan a prober; probes are numbered through all of them, in the order of ``PATHS``.

    Raises ValueError when nothing is left to probe.
    """
    asks = [ask for origin in wanted.origins for ask in _asks(found, origin)]
    asks.sort(key=lambda ask: PATHS.index(ask.path))
    by_place: dict[Place, list[Probe]] = {}
    number = 0
    for ask in asks:
        family: Literal[4, 6] = 4 if ip_address(ask.address).version == 4 else 6
        if family not in wanted.families:
            continue
        for kind, port in ask.ports.items():
            if kind in wanted.kinds:
                by_place.setdefault(ask.place, []).append(_probe(number, kind, ask, family, port, wanted))
                number += 1
    if not by_place:
        raise ValueError("nothing to probe: no address of the wanted families, or no kind that fits a path")
    return {
        place: Plan(prober=" ".join(place).strip(), seconds=wanted.seconds, probes=spread(probes))
        for place, probes in by_place.items()
    }


def _probe(number: int, kind: Kind, ask: _Ask, family: Literal[4, 6], port: int, wanted: Wanted) -> Probe:
    period = int(PERIODS[kind] * wanted.slower)
    return Probe(
        number=number,
        kind=kind,
        path=ask.path,
        family=family,
        address=ask.address,
        port=port,
        period=period - period % 1000,
        timeout=TIMEOUTS[kind],
        name=NAME,
        fills_mtu=kind is Kind.UDP_FRESH and ask.path == CROSS_NODE,
    )


def _asks(found: Found, origin: str) -> Iterator[_Ask]:
    """All that is asked from one node, and from outside of it."""
    pod: Place = ("pod", origin)
    other = _next(list(found.targets), origin)
    yield from _each(pod, SAME_NODE, found.targets.get(origin, ()), _ports(_EVERY))
    if other != origin:
        yield from _each(pod, CROSS_NODE, found.targets[other], _ports(_EVERY))
        yield from _each(("node", origin), FROM_NODE, found.targets[other], _ports(_EVERY))
    # NetworkPolicies are about the pod network: nothing is denied on others.
    yield from _each(pod, SECONDARY, found.secondary.get(other, ()), _ports(_ALLOWED))
    yield from _each(pod, SERVICE, found.service, _ports(_EVERY))
    yield from _each(pod, OUTSIDE, found.outside, _ports(_EVERY))
    yield from _each(pod, CLUSTER_DNS, found.dns, {Kind.DNS: 53})
    if not found.outside and other != origin and other in found.host_targets:
        yield from _each(pod, TO_NODE, found.nodes[other], _ports(_ALLOWED, HOST_TARGET_OFFSET))
    knocker: Place = ("outside", "") if found.outside else ("node", origin)
    host_port, node_port = (HOST_PORT, NODE_PORT) if found.outside else (NODE_HOST_PORT, NODE_NODE_PORT)
    if found.outside or other != origin:
        yield from _each(knocker, host_port, found.nodes.get(other, ()), _ports(_EVERY, HOST_PORT_OFFSET))
        yield from _each(knocker, node_port, found.nodes.get(other, ()), _node_ports(found.node_ports))


def _each(place: Place, path: str, addresses: Iterable[str], ports: Mapping[Kind, int]) -> Iterator[_Ask]:
    if ports:
        yield from (_Ask(place, path, address, ports) for address in addresses)


def _next(nodes: list[str], node: str) -> str:
    """The node after this one, in a ring."""
    return nodes[(nodes.index(node) + 1) % len(nodes)] if node in nodes else nodes[0]


def target_port(kind: Kind) -> int:
    """The port of a target that a kind asks."""
    if kind.denied:
        return DENIED_PORT
    return DNS_PORT if kind is Kind.DNS else ECHO_PORT


def protocol(kind: Kind) -> Literal["TCP", "UDP"]:
    """What a kind goes over."""
    return "TCP" if kind in (Kind.ECHO, Kind.CONNECT, Kind.DENY_TCP) else "UDP"


def _ports(kinds: Iterable[Kind], offset: int = 0) -> dict[Kind, int]:
    return {kind: target_port(kind) + offset for kind in kinds}


def _node_ports(assigned: Mapping[str, int]) -> dict[Kind, int]:
    ports = {kind: assigned.get(f"{target_port(kind)}/{protocol(kind)}") for kind in _EVERY}
    return {kind: port for kind, port in ports.items() if port}
