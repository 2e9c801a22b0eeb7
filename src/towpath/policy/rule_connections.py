"""The connections that a rule is about, once it is known whose ports its names mean."""

from collections.abc import Iterable

from towpath.model.net import Family
from towpath.policy.connections import (
    EVERY_PROTOCOL,
    NOTHING,
    Connections,
    Ranges,
    difference,
    everything,
    intersection,
    normalised,
    part,
)
from towpath.policy.ir import ICMP, ICMPV6, PORT_PROTOCOLS, Icmp, NamedPort, Ports, Rule

_NO_CRITERIA = (None, None, None, None)
_NO_NAMES: frozenset[str] = frozenset()


def rule_connections(
    rule: Rule, family: Family, source: Iterable[NamedPort], destination: Iterable[NamedPort]
) -> Connections:
    """Those between addresses of one family whose owners have these ports. The peers are not looked at.

    ``evaluate.unmet`` says the same of one flow.
    """
    if rule.family not in (None, family):
        return NOTHING
    protocols = EVERY_PROTOCOL if rule.protocol is None else _bit(rule.protocol)
    if rule.not_protocol is not None:
        protocols &= ~_bit(rule.not_protocol)
    asks_icmp = rule.icmp is not None or rule.not_icmp is not None
    if asks_icmp:
        found = Connections(protocols) & _icmp(rule, ICMP if family == 4 else ICMPV6)
    else:
        found = Connections(protocols)
    if _criteria(rule) != _NO_CRITERIA:
        found &= _ports(rule, tuple(source), tuple(destination))
    return found


def names_of(rule: Rule) -> tuple[frozenset[str], frozenset[str]]:
    """The port names that it asks of the source, and of the destination."""
    criteria = _criteria(rule)
    if criteria == _NO_CRITERIA:
        return _NO_NAMES, _NO_NAMES
    source, not_source, destination, not_destination = (
        frozenset(ports.names if ports is not None else ()) for ports in criteria
    )
    return source | not_source, destination | not_destination


def _criteria(rule: Rule) -> tuple[Ports | None, Ports | None, Ports | None, Ports | None]:
    return (
        rule.source_ports,
        rule.not_source_ports,
        rule.destination_ports,
        rule.not_destination_ports,
    )


def _bit(protocol: int) -> int:
    return 1 << protocol if 0 <= protocol < 256 else 0


def _icmp(rule: Rule, protocol: int) -> Connections:
    found = Connections(1 << protocol)
    if rule.icmp is not None:
        found &= _types(rule.icmp, protocol)
    if rule.not_icmp is not None:
        found -= _types(rule.not_icmp, protocol)
    return found


def _types(icmp: Icmp, protocol: int) -> Connections:
    every = everything(protocol)
    if icmp.type is None:
        return part(protocol, every, every)
    types = intersection(every, ((icmp.type, icmp.type),))
    return part(protocol, types, every if icmp.code is None else intersection(every, ((icmp.code,) * 2,)))


def _ports(rule: Rule, source: tuple[NamedPort, ...], destination: tuple[NamedPort, ...]) -> Connections:
    found = NOTHING
    for protocol in PORT_PROTOCOLS:
        if rule.protocol in (None, protocol):
            first = _meant(rule.source_ports, rule.not_source_ports, protocol, source)
            second = _meant(rule.destination_ports, rule.not_destination_ports, protocol, destination)
            found |= part(protocol, first, second)
    return found


def _meant(
    ports: Ports | None, not_ports: Ports | None, protocol: int, named: tuple[NamedPort, ...]
) -> Ranges:
    meant = everything(protocol)
    if ports is not None:
        meant = intersection(meant, _numbers(ports, protocol, named))
    if not_ports is not None:
        meant = difference(meant, _numbers(not_ports, protocol, named))
    return meant


def _numbers(ports: Ports, protocol: int, named: tuple[NamedPort, ...]) -> Ranges:
    own = ((p.port, p.port) for p in named if p.protocol == protocol and p.name in ports.names)
    return normalised((*ports.ranges, *own))
