"""A rule as boxes: all that it matches is sources by destinations by connections, a few times."""

from collections.abc import Iterator
from typing import NamedTuple

from towpath.policy.connections import Connections
from towpath.policy.ir import Rule
from towpath.policy.places import Places
from towpath.policy.rule_connections import names_of, rule_connections
from towpath.policy.selection import Selection


class Box(NamedTuple):
    """Two sets of places, and what between any of the one and any of the other, if they are of one family."""

    sources: int
    destinations: int
    connections: Connections


def boxes(rule: Rule, places: Places, selection: Selection) -> Iterator[Box]:
    """What the rule matches, without empty boxes. ``evaluate.unmet`` says the same of one flow."""
    sources = selection.peers(rule.source, rule.action)
    destinations = selection.peers(rule.destination, rule.action)
    source_names, destination_names = names_of(rule)
    for source_ports, at_sources in selection.named(source_names):
        for destination_ports, at_destinations in selection.named(destination_names):
            families: dict[Connections, int] = {}
            for family, at in places.families.items():
                connections = rule_connections(rule, family, source_ports, destination_ports)
                families[connections] = families.get(connections, 0) | at
            for connections, at in families.items():
                box = Box(sources & at_sources & at, destinations & at_destinations & at, connections)
                if all(box):
                    yield box
