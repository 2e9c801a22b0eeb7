"""May A reach B? Straight from the ``World``, for one flow at a time: the oracle for everything faster.

What is judged: a flow's source side by the egress of the endpoints that have its source address, its
destination side by the ingress of those that have its destination address. An address without an endpoint,
and a node's, is judged by the other side only; an endpoint always reaches itself. Where several endpoints
share an address, all must allow.

What is forwarded to or from pods of a node that has host endpoints must be let through by those it passes
(``passage``) as well. Their own connections are asked about by failsafe ports, then by policies before
tracking and before DNAT, then by the normal ones.

Not seen here, since no flow's addresses tell it: replies and what is related to an allowed flow (accepted),
a node's own traffic to its pods (accepted), address translation (a flow is given as it is after DNAT, a
hairpin through a service with the masqueraded source).
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Literal

import msgspec

from towpath.model.net import Addr, Family
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    KIND,
    PORT_PROTOCOLS,
    Aspect,
    Direction,
    Endpoint,
    Icmp,
    Peer,
    Policy,
    Ports,
    Rule,
    Tier,
    World,
    ordered_tiers,
)
from towpath.policy.passage import End, Passage, host_nodes, passages, seen_from
from towpath.policy.selector import Selector

DYNAMIC_PORT = 49152  # the first port that clients are given (RFC 6335 §6)

Side = Literal["source", "destination"]
# What a host endpoint asks about its own connections, in this order.
HOST_ASPECTS: dict[Direction, tuple[Aspect, ...]] = {
    "ingress": ("untracked", "pre-dnat", "local"),
    "egress": ("untracked", "local"),
}
_UNDECIDED: tuple[Aspect, ...] = ("untracked", "pre-dnat")


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The first packet of a connection, as it is after destination NAT.

    ``protocol`` an IP protocol number. Ports count for TCP, UDP and SCTP only, ``icmp_type`` and
    ``icmp_code`` for ICMP and ICMPv6. ValueError if the addresses are of two families.
    """

    source: Addr
    destination: Addr
    protocol: int
    source_port: int = DYNAMIC_PORT
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0

    def __post_init__(self) -> None:
        if self.source.version != self.destination.version:
            raise ValueError(f"no packet goes from {self.source} to {self.destination}")

    @property
    def family(self) -> Family:
        """That of both addresses."""
        return 4 if isinstance(self.source, IPv4Address) else 6


class Unmet(msgspec.Struct, frozen=True):
    """What a rule asks and a flow does not meet. ``criterion`` is the field of ``Rule``, such as
    ``destination.nets``; ``asked`` its value.
    """

    criterion: str
    asked: object


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that does not apply (``rule`` None), or a rule, which matches if nothing is ``unmet``."""

    tier: Tier
    policy: Policy
    rule: Rule | None = None
    unmet: tuple[Unmet, ...] = ()
    why: Literal["", "selector", "direction", "aspect"] = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """By a rule; or without one by the default of a tier whose ``applied`` policies did not decide; or, past
    the last tier, by the endpoint's ``unmatched``. ``final`` False: by nothing, what comes later decides.
    """

    allowed: bool
    final: bool = True
    failsafe: bool = False
    tier: Tier | None = None
    policy: Policy | None = None
    rule: Rule | None = None
    applied: tuple[Policy, ...] = ()


def verdict(world: World, flow: Flow) -> bool:
    """Whether the flow is allowed by both sides, and by all it passes."""
    sources, destinations = asked(world, flow)
    if flow.source == flow.destination or any(endpoint in destinations for endpoint in sources):
        return True
    return (
        all(allows(world, endpoint, "egress", flow) for endpoint in sources)
        and all(allows(world, endpoint, "ingress", flow) for endpoint in destinations)
        and all(allows(world, *passage[:2], flow, passage.aspects) for passage in passing(world, flow))
    )


def asked(world: World, flow: Flow) -> tuple[list[Endpoint], list[Endpoint]]:
    """Whose egress and whose ingress. Between a node with host endpoints and its own pods: only these pods'
    egress.
    """
    sources, destinations = judged(world, flow.source), judged(world, flow.destination)
    for node in host_nodes(world):
        source, destination = _seen(world, node, flow)
        if source == "own" and destination == "here":
            sources = [one for one in sources if one.node != node]
            destinations = [one for one in destinations if one.node != node]
        elif source == "here" and destination == "own":
            destinations = [one for one in destinations if one.node != node]
    return sources, destinations


def _seen(world: World, node: str, flow: Flow) -> tuple[End, End]:
    source, destination = endpoints_at(world, flow.source), endpoints_at(world, flow.destination)
    return seen_from(node, source), seen_from(node, destination)


def passing(world: World, flow: Flow) -> Iterator[Passage]:
    """The host endpoints that the flow passes, and where they ask. Of an endpoint and itself: none."""
    for node in host_nodes(world):
        yield from passages(world, node, *_seen(world, node, flow))


def allows(
    world: World, endpoint: Endpoint, direction: Direction, flow: Flow, aspects: tuple[Aspect, ...] = ()
) -> bool:
    """Whether this endpoint lets the flow begin, or end, at it, or pass it, asked in these ``aspects``."""
    steps = through(world, endpoint, direction, flow, aspects)
    return next(step for step in steps if isinstance(step, Decision)).allowed


def through(
    world: World, endpoint: Endpoint, direction: Direction, flow: Flow, aspects: tuple[Aspect, ...] = ()
) -> Iterator[Looked | Decision]:
    """``walk``, at a host endpoint through failsafes and all aspects that concern its own connections, or
    through these ``aspects`` of what passes. That is not asked about by policies before tracking and before
    DNAT if it is for a failsafe port.
    """
    if endpoint.labels.get(KIND) != "hostendpoint":
        yield from walk(world, endpoint, direction, flow)
        return
    safe = _is_failsafe(world, direction, flow)
    if safe and not aspects:
        yield Decision(allowed=True, failsafe=True)
    for aspect in aspects or HOST_ASPECTS[direction]:
        if safe and aspects and aspect in _UNDECIDED:
            continue
        for step in walk(world, endpoint, direction, flow, aspect):
            if step.why != "aspect" if isinstance(step, Looked) else step.final:
                yield step
    if aspects and aspects[-1] in _UNDECIDED:
        yield Decision(allowed=True)  # nobody else is asked


def host_aspects(
    world: World, endpoint: Endpoint, direction: Direction, flow: Flow, aspects: tuple[Aspect, ...] = ()
) -> tuple[Aspect, ...]:
    """Those of ``through`` in which a host endpoint is asked about the flow; none if it is for a failsafe
    port of its own, and of another endpoint.
    """
    if endpoint.labels.get(KIND) != "hostendpoint":
        return ()
    if not _is_failsafe(world, direction, flow):
        return aspects or HOST_ASPECTS[direction]
    return tuple(aspect for aspect in aspects if aspect not in _UNDECIDED)


def _is_failsafe(world: World, direction: Direction, flow: Flow) -> bool:
    inward = direction == "ingress"
    far = flow.source if inward else flow.destination
    return any(
        (one.protocol, one.port) == (flow.protocol, flow.destination_port)
        and any(far in net for net in one.nets)
        for one in (world.failsafes.inbound if inward else world.failsafes.outbound)
    )


def judge(world: World, endpoint: Endpoint, direction: Direction, flow: Flow) -> bool:
    """Whether this endpoint's policies of one direction allow the flow."""
    return next(step for step in walk(world, endpoint, direction, flow) if isinstance(step, Decision)).allowed


def walk(
    world: World, endpoint: Endpoint, direction: Direction, flow: Flow, aspect: Aspect = "local"
) -> Iterator[Looked | Decision]:
    """Every step of the evaluation that ``ir`` describes, at a host endpoint in one ``aspect`` of its.

    The first decision is the verdict. Who goes on after it sees what would come next were it not made; the
    last decision is always the endpoint's ``unmatched``. What passes through a host is allowed instead, and
    before tracking or DNAT neither that nor a tier's default decides (``felix/rules/endpoints.go``).
    """
    for tier in ordered_tiers(world):
        yield from _walk_tier(world, tier, endpoint, direction, flow, aspect)
    yield Decision(allowed=endpoint.unmatched == "allow" or aspect != "local", final=aspect not in _UNDECIDED)


def _walk_tier(
    world: World, tier: Tier, endpoint: Endpoint, direction: Direction, flow: Flow, aspect: Aspect
) -> Iterator[Looked | Decision]:
    applied: list[Policy] = []
    for policy in sorted((p for p in world.policies if p.tier == tier.name), key=lambda p: p.sort_key):
        rules = policy.rules(direction)
        if aspect not in policy.aspects:
            yield Looked(tier=tier, policy=policy, why="aspect")
        elif not policy.selector.matches(endpoint.labels):
            yield Looked(tier=tier, policy=policy, why="selector")
        elif rules is None:
            yield Looked(tier=tier, policy=policy, why="direction")
        else:
            applied.append(policy)
            for rule in rules:
                missing = tuple(unmet(world, rule, flow))
                yield Looked(tier=tier, policy=policy, rule=rule, unmet=missing)
                if missing or rule.action == "log":
                    continue
                if rule.action == "pass":
                    return
                yield Decision(allowed=rule.action == "allow", tier=tier, policy=policy, rule=rule)
    if applied and tier.default != "pass" and aspect not in _UNDECIDED:
        yield Decision(allowed=tier.default == "allow", tier=tier, applied=tuple(applied))


def unmet(world: World, rule: Rule, flow: Flow) -> Iterator[Unmet]:
    """All that the rule asks and the flow does not meet. Of nothing, the rule matches."""
    if rule.family not in (None, flow.family):
        yield Unmet("family", rule.family)
    if rule.protocol not in (None, flow.protocol):
        yield Unmet("protocol", rule.protocol)
    if rule.not_protocol == flow.protocol:
        yield Unmet("not_protocol", rule.not_protocol)
    yield from _unmet_icmp(rule, flow)
    yield from _unmet_peer(world, rule, "source", flow.source)
    yield from _unmet_peer(world, rule, "destination", flow.destination)
    yield from _unmet_ports(world, rule, flow)


def _unmet_icmp(rule: Rule, flow: Flow) -> Iterator[Unmet]:
    """Both criteria ask for the family's ICMP."""
    has_type = flow.protocol == (ICMP if flow.family == 4 else ICMPV6)
    if rule.icmp is not None and not (has_type and _same_icmp(rule.icmp, flow)):
        yield Unmet("icmp", rule.icmp)
    if rule.not_icmp is not None and (not has_type or _same_icmp(rule.not_icmp, flow)):
        yield Unmet("not_icmp", rule.not_icmp)


def _same_icmp(icmp: Icmp, flow: Flow) -> bool:
    return icmp.type is None or (icmp.type == flow.icmp_type and icmp.code in (None, flow.icmp_code))


def _unmet_peer(world: World, rule: Rule, side: Side, address: Addr) -> Iterator[Unmet]:
    peer: Peer = getattr(rule, side)
    if peer.selector is not None and not selected(world, peer.selector, address):
        yield Unmet(f"{side}.selector", peer.selector)
    if peer.not_selector is not None and selected(world, peer.not_selector, address):
        yield Unmet(f"{side}.not_selector", peer.not_selector)
    if peer.nets is not None and not any(address in net for net in peer.nets):
        yield Unmet(f"{side}.nets", peer.nets)
    if any(address in net for net in peer.not_nets):
        yield Unmet(f"{side}.not_nets", peer.not_nets)
    # One that was never resolved: an allow rule allows nothing, any other speaks of everything.
    if peer.service is not None and rule.action == "allow":
        yield Unmet(f"{side}.service", peer.service)


def selected(world: World, selector: Selector, address: Addr) -> bool:
    """Whether an endpoint with this address, or a network set that contains it, is selected."""
    return any(selector.matches(endpoint.labels) for endpoint in endpoints_at(world, address)) or any(
        selector.matches(networks.labels)
        for networks in world.network_sets
        if any(address in net for net in networks.nets)
    )


def _unmet_ports(world: World, rule: Rule, flow: Flow) -> Iterator[Unmet]:
    """All four criteria ask for a protocol with ports. Names are those of the endpoint whose port it is."""
    has_ports = flow.protocol in PORT_PROTOCOLS
    for criterion, ports, address, port in (
        ("source_ports", rule.source_ports, flow.source, flow.source_port),
        ("destination_ports", rule.destination_ports, flow.destination, flow.destination_port),
    ):
        if ports is not None and not (has_ports and _among(world, ports, flow.protocol, address, port)):
            yield Unmet(criterion, ports)
    for criterion, ports, address, port in (
        ("not_source_ports", rule.not_source_ports, flow.source, flow.source_port),
        ("not_destination_ports", rule.not_destination_ports, flow.destination, flow.destination_port),
    ):
        if ports is not None and (not has_ports or _among(world, ports, flow.protocol, address, port)):
            yield Unmet(criterion, ports)


def _among(world: World, ports: Ports, protocol: int, address: Addr, port: int) -> bool:
    return any(first <= port <= last for first, last in ports.ranges) or any(
        named.name in ports.names and named.protocol == protocol and named.port == port
        for endpoint in endpoints_at(world, address)
        for named in endpoint.ports
    )


def endpoints_at(world: World, address: Addr) -> list[Endpoint]:
    """All that have this address, as peers."""
    return [endpoint for endpoint in world.endpoints if address in endpoint.addresses]


def judged(world: World, address: Addr) -> list[Endpoint]:
    """Those whose policies a flow from or to this address is subject to: no nodes."""
    return [endpoint for endpoint in endpoints_at(world, address) if endpoint.labels.get(KIND) != "node"]
