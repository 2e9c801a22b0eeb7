"""Services as peers, by way of their EndpointSlices, as Felix does (``felix/serviceindex``): every endpoint
counts, ready or not; a slice's port that has no number adds nothing.

As a destination a service is its endpoints' addresses with their ports, since a packet that policy sees has
been through the service's address translation; as a source, the addresses alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

import msgspec

from towpath.api.slices import SERVICE_NAME, EndpointSlice
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net
from towpath.policy.connections import normalised
from towpath.policy.endpoints import addresses_of
from towpath.policy.ir import Peer, Policy, Ports, Rule, ServiceRef
from towpath.policy.port_matches import PROTOCOLS

Port = tuple[int, int]  # IP protocol number, port


class Backends(msgspec.Struct, frozen=True):
    """What stands behind a service. Addresses that serve the same ports are together."""

    groups: dict[frozenset[Port], tuple[Addr, ...]] = {}

    @property
    def addresses(self) -> tuple[Addr, ...]:
        """All of them, in no order that means anything."""
        return tuple(address for group in self.groups.values() for address in group)


Services = Mapping[ServiceRef, Backends]


def backends(slices: Iterable[EndpointSlice]) -> Backends:
    """Of the slices of one service."""
    ports: defaultdict[Addr, set[Port]] = defaultdict(set)
    for one in slices:
        offered = {
            (PROTOCOLS[port.protocol or "TCP"], port.port)
            for port in one.ports or ()
            if port.port is not None and 0 < port.port < 65536 and (port.protocol or "TCP") in PROTOCOLS
        }
        for endpoint in one.endpoints or ():
            for address in addresses_of(endpoint.addresses or ()):
                ports[address] |= offered
    groups: defaultdict[frozenset[Port], list[Addr]] = defaultdict(list)
    for address in sorted(ports, key=lambda address: (address.version, int(address))):
        groups[frozenset(ports[address])].append(address)
    return Backends({offered: tuple(addresses) for offered, addresses in groups.items()})


def service_of(one: EndpointSlice) -> ServiceRef | None:
    """Whose slice it is; None if its label does not say."""
    name = (one.metadata.labels or {}).get(SERVICE_NAME)
    return ServiceRef(one.metadata.namespace, name) if name else None


def services(slices: Iterable[EndpointSlice]) -> dict[ServiceRef, Backends]:
    """All services that have slices."""
    by_service: defaultdict[ServiceRef, list[EndpointSlice]] = defaultdict(list)
    for one in slices:
        ref = service_of(one)
        if ref is not None:
            by_service[ref].append(one)
    return {ref: backends(of_service) for ref, of_service in by_service.items()}


def references(policy: Policy) -> frozenset[ServiceRef]:
    """The services whose slices it depends on."""
    return frozenset(
        peer.service
        for rule in (*(policy.ingress or ()), *(policy.egress or ()))
        for peer in (rule.source, rule.destination)
        if peer.service is not None
    )


def resolve(policy: Policy, known: Services) -> Policy:
    """The policy with addresses and ports in the place of services. ``known`` as of a moment when all slices
    had been listed.

    A service without endpoints matches nothing, known or not, whatever the rule's action. For a rule that
    denies this widens nothing: it says "not to what stands behind X", nothing does, and a service that is not
    there yet is no different from one that has no pods yet. The rule comes to life with its endpoints.
    """
    if not references(policy):
        return policy
    return msgspec.structs.replace(
        policy, ingress=_resolved(policy.ingress, known), egress=_resolved(policy.egress, known)
    )


def unresolved(policy: Policy, known: Services) -> tuple[Finding, ...]:
    """What an author may want to know: the services it names that have no endpoints."""
    return tuple(
        Finding(
            code="TP5003",
            object=str(policy),
            message=f"Service {ref.namespace}/{ref.name} has no endpoints; rules with it match nothing",
            fix="correct its name or namespace, or see why it has no pods",
            severity="warning",
        )
        for ref in sorted(references(policy), key=lambda ref: (ref.namespace, ref.name))
        if not known.get(ref, Backends()).groups
    )


def _resolved(rules: tuple[Rule, ...] | None, known: Services) -> tuple[Rule, ...] | None:
    if rules is None:
        return None
    return tuple(
        with_destination
        for rule in rules
        for with_source in _from_service(rule, known)
        for with_destination in _to_service(with_source, known)
    )


def _from_service(rule: Rule, known: Services) -> list[Rule]:
    if rule.source.service is None:
        return [rule]
    nets = _nets(known.get(rule.source.service, Backends()).addresses, rule.source)
    return [msgspec.structs.replace(rule, source=_without_service(rule.source, nets))] if nets else []


def _to_service(rule: Rule, known: Services) -> list[Rule]:
    """One for each set of ports and protocol.

    A rule that asks for destination ports as well cannot say both (converters refuse it): it then allows
    nothing, and denies its own ports at all of the service's addresses.
    """
    peer = rule.destination
    if peer.service is None:
        return [rule]
    found: list[Rule] = []
    for offered, addresses in known.get(peer.service, Backends()).groups.items():
        nets = _nets(addresses, peer)
        if not nets:
            continue
        destination = _without_service(peer, nets)
        if rule.destination_ports is None:
            for protocol, ports in _by_protocol(offered, rule):
                found.append(
                    msgspec.structs.replace(
                        rule, destination=destination, protocol=protocol, destination_ports=ports
                    )
                )
        elif rule.action != "allow":
            found.append(msgspec.structs.replace(rule, destination=destination))
    return found


def _by_protocol(offered: frozenset[Port], rule: Rule) -> list[tuple[int, Ports]]:
    by_protocol: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for protocol, port in offered:
        if rule.protocol in (None, protocol) and rule.not_protocol != protocol:
            by_protocol[protocol].append((port, port))
    return [(protocol, Ports(normalised(ranges))) for protocol, ranges in sorted(by_protocol.items())]


def _without_service(peer: Peer, nets: tuple[Net, ...]) -> Peer:
    return msgspec.structs.replace(peer, service=None, nets=nets)


def _nets(addresses: tuple[Addr, ...], peer: Peer) -> tuple[Net, ...]:
    """The addresses that the peer's own networks hold, if it asks for networks."""
    return tuple(
        ip_network(address)
        for address in addresses
        if peer.nets is None or any(address in net for net in peer.nets)
    )
