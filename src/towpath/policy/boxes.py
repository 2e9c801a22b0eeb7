"""A rule as boxes: all that it matches is sources by destinations by connections, a few times."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from towpath.model.net import Family
from towpath.policy.connections import (
    EVERY_PROTOCOL,
    Connections,
    Ranges,
    difference,
    everything,
    intersection,
    part,
)
from towpath.policy.ir import ICMP, ICMPV6, PORT_PROTOCOLS, Icmp, Ports, Rule
from towpath.policy.places import Places
from towpath.policy.selection import Selection

_ICMP: tuple[tuple[Family, int], ...] = ((4, ICMP), (6, ICMPV6))


class Box(NamedTuple):
    """Two sets of places, and what between any of the one and any of the other."""

    sources: int
    destinations: int
    connections: Connections


def boxes(rule: Rule, places: Places, selection: Selection) -> Iterator[Box]:
    """What the rule matches, without empty boxes. ``evaluate.unmet`` says the same of one flow."""
    sources = selection.peers(rule.source, rule.action)
    destinations = selection.peers(rule.destination, rule.action)
    if rule.family is not None:
        sources &= places.families[rule.family]
    protocols = EVERY_PROTOCOL if rule.protocol is None else 1 << rule.protocol
    if rule.not_protocol is not None:
        protocols &= ~(1 << rule.not_protocol)
    asks_icmp = rule.icmp is not None or rule.not_icmp is not None
    asked: Iterator[Box]
    if _asks_ports(rule):
        asked = iter(()) if asks_icmp else _port_boxes(rule, protocols, selection)
    elif asks_icmp:
        asked = _icmp_boxes(rule, protocols, places)
    else:
        asked = iter((Box(selection.everywhere, selection.everywhere, Connections(protocols)),))
    for box in asked:
        found = Box(box.sources & sources, box.destinations & destinations, box.connections)
        if all(found):
            yield found


def _asks_ports(rule: Rule) -> bool:
    return any(
        ports is not None
        for ports in (
            rule.source_ports,
            rule.not_source_ports,
            rule.destination_ports,
            rule.not_destination_ports,
        )
    )


def _port_boxes(rule: Rule, protocols: int, selection: Selection) -> Iterator[Box]:
    for protocol in PORT_PROTOCOLS:
        if protocols >> protocol & 1:
            first = _port_numbers(rule.source_ports, rule.not_source_ports, protocol, selection)
            second = _port_numbers(rule.destination_ports, rule.not_destination_ports, protocol, selection)
            for sources, at_sources in first.items():
                for destinations, at_destinations in second.items():
                    yield Box(at_sources, at_destinations, part(protocol, sources, destinations))


def _port_numbers(
    ports: Ports | None, not_ports: Ports | None, protocol: int, selection: Selection
) -> dict[Ranges, int]:
    """The ports that are meant, and where: names make them differ from place to place."""
    meant: dict[Ranges, int] = {everything(protocol): selection.everywhere}
    asked: tuple[tuple[Ports | None, Callable[[Ranges, Ranges], Ranges]], ...] = (
        (ports, intersection),
        (not_ports, difference),
    )
    for criterion, operation in asked:
        if criterion is not None:
            fewer: dict[Ranges, int] = {}
            for ranges, at in meant.items():
                for these, at_these in selection.ports(criterion, protocol).items():
                    left = operation(ranges, these)
                    fewer[left] = fewer.get(left, 0) | at & at_these
            meant = fewer
    return meant


def _icmp_boxes(rule: Rule, protocols: int, places: Places) -> Iterator[Box]:
    for family, protocol in _ICMP:
        if protocols >> protocol & 1:
            connections = Connections(1 << protocol)
            if rule.icmp is not None:
                connections &= _types(rule.icmp, protocol)
            if rule.not_icmp is not None:
                connections -= _types(rule.not_icmp, protocol)
            yield Box(places.families[family], places.families[family], connections)


def _types(icmp: Icmp, protocol: int) -> Connections:
    every = everything(protocol)
    if icmp.type is None:
        return part(protocol, every, every)
    codes = every if icmp.code is None else ((icmp.code, icmp.code),)
    return part(protocol, ((icmp.type, icmp.type),), codes)
