"""Published ports of running pods, from the rules that serve them: portmap's, iptables or nftables.

What is in force is what has to go on working; what the runtime once asked for may be known to nobody any
more.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from towpath.migrate.iptables import Rule, Table
from towpath.migrate.ownership import DNAT_TOP, portmap_comment
from towpath.model.attachment import PortMapping
from towpath.model.net import Addr

Ports = dict[str, tuple[PortMapping, ...]]
"""By container ID."""

_PROTOCOL = re.compile(r" -p (tcp|udp|sctp)(?= )")
_PORT = re.compile(r" --dport (\d+)(?= )")
_HOST = re.compile(r" -d ([0-9a-fA-F:.]+)(?:/\d+)?(?= )")
_TO = re.compile(r" --to-destination (?:\[([^\]]+)\]|([0-9.]+)):(\d+)")
_NFT_RULE = re.compile(
    r"^\s*(?:ip6? daddr (?P<host>\S+) )?(?P<proto>tcp|udp|sctp) dport (?P<port>\d+) (?:counter .*?)?"
    r"dnat to (?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+)):(?P<to>\d+) comment \"(?P<id>[^\"]+)\""
)


def from_iptables(tables: Mapping[str, Table], network: str) -> Ports:
    """What portmap's chains of ``network`` serve in one family."""
    table = tables.get("nat")
    found: dict[str, dict[PortMapping, None]] = {}
    if table is None:
        return {}
    for entry in table.of(DNAT_TOP):
        said = portmap_comment(entry)
        if said is None or said[0] != network:
            continue
        for rule in table.of(entry.target):
            if (mapping := _mapping(rule)) is not None:
                found.setdefault(said[1], {})[mapping] = None
    return {container: tuple(ports) for container, ports in found.items()}


def _mapping(rule: Rule) -> PortMapping | None:
    if rule.target != "DNAT":
        return None
    protocol, port, to = (pattern.search(rule.bare) for pattern in (_PROTOCOL, _PORT, _TO))
    if protocol is None or port is None or to is None:
        return None
    host = _HOST.search(rule.bare)
    return _made(protocol[1], port[1], to[3], host[1] if host else None)


def from_nft(listing: str) -> Ports:
    """What a listed table ``cni_hostport`` (portmap 1.6 and later, backend nftables) serves.

    Its rules name the container's ID only, not the network.
    """
    found: dict[str, dict[PortMapping, None]] = {}
    for line in listing.splitlines():
        if (rule := _NFT_RULE.match(line)) is not None:
            mapping = _made(rule["proto"], rule["port"], rule["to"], rule["host"])
            found.setdefault(rule["id"], {})[mapping] = None
    return {container: tuple(ports) for container, ports in found.items()}


def merged(several: Iterable[Ports]) -> Ports:
    """Of both families: a mapping without host address is in each, and is one."""
    found: dict[str, dict[PortMapping, None]] = {}
    for ports in several:
        for container, mappings in ports.items():
            found.setdefault(container, {}).update(dict.fromkeys(mappings))
    return {container: tuple(mappings) for container, mappings in found.items()}


def runtime_config(mappings: Iterable[PortMapping]) -> list[dict[str, Any]]:
    """The mappings as a runtime gives them to portmap."""
    return [
        {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": mapping.protocol,
            **({"hostIP": str(mapping.host_ip)} if mapping.host_ip is not None else {}),
        }
        for mapping in mappings
    ]


def _made(protocol: str, port: str, to: str, host: str | None) -> PortMapping:
    address: Addr | None = ip_address(host) if host else None
    assert isinstance(address, IPv4Address | IPv6Address | None)  # noqa: S101 - for the type checker
    return PortMapping(
        host_port=int(port),
        container_port=int(to),
        protocol="sctp" if protocol == "sctp" else "udp" if protocol == "udp" else "tcp",
        host_ip=address,
    )
