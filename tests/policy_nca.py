"""network-config-analyzer as an oracle: the same manifests, read and judged by code that is not ours.

Its world is smaller: pods have no addresses (a network never means a pod) and no families, there are no tiers
and no nodes, ports begin at 1 and ICMP types end at 254. ``COMMON`` is what both can tell of IPv4.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import yaml
from nca.CoreDS.DimensionsManager import DimensionsManager
from nca.CoreDS.Peer import BasePeerSet
from nca.NetworkConfig.ResourcesHandler import ResourcesHandler

from towpath.policy.connections import (
    ALL,
    NOTHING,
    Connections,
    Ranges,
    everything,
    normalised,
    part,
)
from towpath.policy.ir import ICMP, ICMPV6, PORT_PROTOCOLS

Manifest = Mapping[str, Any]

_PORTS: Ranges = ((1, 65535),)
COMMON = ALL - Connections(1 << ICMPV6)
for _protocol in PORT_PROTOCOLS:
    COMMON = COMMON - Connections(1 << _protocol) | part(_protocol, _PORTS, _PORTS)
COMMON -= part(ICMP, ((255, 255),), everything(ICMP))


class Analyzer:
    """Its answers about one set of manifests. ``said`` is what it printed: warnings, mostly."""

    def __init__(self, folder: Path, manifests: Iterable[Manifest]) -> None:
        by_place: dict[str, list[Manifest]] = {"namespaces": [], "endpoints": [], "policies": []}
        for manifest in manifests:
            by_place[_place(manifest["kind"])].append(manifest)
        paths = []
        for name, found in by_place.items():
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump_all(found))
            paths.append([str(path)])
        # Singletons remember the peers of earlier manifests, and their labels.
        BasePeerSet.reset()
        DimensionsManager.reset()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            config = ResourcesHandler().get_network_config(paths[2], paths[0], paths[1], None, "tried")
            allowed = config.allowed_connections().all_allowed_conns
        self.said = said.getvalue()
        self._peers = BasePeerSet()
        self._numbers = {
            str(peer): self._peers.min_pod_index + number
            for number, peer in enumerate(self._peers.ordered_peer_list)
        }
        self._cubes = [
            (_axis(axes, "src_peers"), _axis(axes, "dst_peers"), _connections(axes))
            for axes in (_narrow(allowed.active_dimensions, cube) for cube in allowed)
        ]

    def between(self, source: str, destination: str) -> Connections:
        """What it allows, as far as COMMON goes. Ends are ``NAMESPACE/POD``, a host endpoint's name, or an
        address of nobody's.
        """
        start, end = self._number(source), self._number(destination)
        found = NOTHING
        for sources, destinations, connections in self._cubes:
            if _has(sources, start) and _has(destinations, end):
                found |= connections
        return found & COMMON

    def _number(self, end: str) -> int:
        """Its number for an endpoint or address."""
        if end in self._numbers:
            return int(self._numbers[end])
        address = ip_address(end)
        first = self._peers.min_ipv4_index if isinstance(address, IPv4Address) else self._peers.min_ipv6_index
        return int(first) + int(address)


def _place(kind: str) -> str:
    if kind == "Namespace":
        return "namespaces"
    return "policies" if kind.endswith("NetworkPolicy") else "endpoints"


def _ranges(axis: Any) -> Ranges:
    return normalised([(interval.start, interval.end) for interval in axis.interval_set])


def _narrow(names: Iterable[str], cube: Iterable[Any]) -> dict[str, Any]:
    """A cube's axes, but for those that are whole."""
    domains = DimensionsManager()
    return {
        name: axis
        for name, axis in zip(names, cube, strict=True)
        if axis != domains.get_dimension_domain_by_name(name)
    }


def _axis(axes: Mapping[str, Any], name: str) -> Ranges | None:
    return _ranges(axes[name]) if name in axes else None


def _has(ranges: Ranges | None, number: int) -> bool:
    return ranges is None or any(first <= number <= last for first, last in ranges)


def _connections(axes: Mapping[str, Any]) -> Connections:
    """Of one cube: its protocols, by as much of each as the cube has."""
    protocols = sum(
        1 << number
        for first, last in _axis(axes, "protocols") or ((0, 255),)
        for number in range(first, last + 1)
    )
    found = Connections(protocols)
    sides: tuple[tuple[tuple[int, ...], str, str], ...] = (
        (PORT_PROTOCOLS, "src_ports", "dst_ports"),
        ((ICMP, ICMPV6), "icmp_type", "icmp_code"),
    )
    for those, first_axis, second_axis in sides:
        if first_axis in axes or second_axis in axes:
            # Only these protocols have such an axis, so of the others there is nothing in the cube.
            found = NOTHING
            for protocol in those:
                if protocols >> protocol & 1:
                    firsts = _axis(axes, first_axis) or everything(protocol)
                    seconds = _axis(axes, second_axis) or everything(protocol)
                    found |= part(protocol, firsts, seconds)
    return found
