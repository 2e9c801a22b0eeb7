"""Attachments without a lease store: what the kernel still knows of the pods that run, and whose they are.

A damaged store is put aside, never repaired in place: what it would say could be wrong. The kernel cannot be:
a pod's link, the routes to its addresses and its permanent neighbour entries are what it lives by.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from towpath.desired.names import POD_PREFIX, host_ifname
from towpath.model.attachment import Attachment, PodRef, PortMapping
from towpath.model.net import Addr
from towpath.model.nft import Key
from towpath.model.state import NetState

_CONTAINER = "recovered:"
_IFNAME = "eth0"
_PROTOCOLS: dict[str, Literal["tcp", "udp", "sctp"]] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


def is_recovered(att: Attachment) -> bool:
    """Whether its container's true ID is unknown; its link's name has to do in its place."""
    return att.container_id.startswith(_CONTAINER)


def recovered(observed: NetState, pods: Iterable[PodRef], boot_id: str) -> list[Attachment]:
    """An attachment for each pod link that routes lead to; ``pods`` are those the API has for this node.

    A link that is no pod's gets one without a pod: it keeps its addresses, and is allowed nothing where there
    are policies. Limits of bandwidth are in the kernel and stay there.
    """
    names = {host_ifname(ref.namespace, ref.name): ref for ref in pods}
    owners: dict[Addr, str] = {}
    for route in sorted(observed.routes, key=lambda r: (r.dst.version, int(r.dst.network_address))):
        single = route.dst.prefixlen == route.dst.max_prefixlen
        if single and route.via is None and route.dev.startswith(POD_PREFIX):
            owners.setdefault(route.dst.network_address, route.dev)
    addresses: dict[str, list[Addr]] = {}
    for address, dev in owners.items():
        addresses.setdefault(dev, []).append(address)
    macs = {item.dev: item.mac for item in observed.neighbours}
    ports = _ports(observed)
    return [
        Attachment(
            container_id=_CONTAINER + dev,
            ifname=_IFNAME,
            network="",
            netns="",
            host_ifname=dev,
            addresses=tuple(found),
            mac=macs[dev],
            mtu=observed.links[dev].mtu,
            boot_id=boot_id,
            pod=names.get(dev),
            ports=tuple(dict.fromkeys(port for address in found for port in ports.get(address, ()))),
        )
        for dev, found in sorted(addresses.items())
        if dev in observed.links and dev in macs
    ]


def _ports(observed: NetState) -> Mapping[Addr, list[PortMapping]]:
    """Published ports by the pod's address, from the table, if it is still there."""
    ports: dict[Addr, list[PortMapping]] = {}
    for version in (4, 6):
        for name in (f"hostport{version}", f"hostport_ip{version}"):
            decl = observed.nft.sets.get(name) if observed.nft is not None else None
            for key, data in decl.elements.items() if decl is not None else ():
                if (found := _port(key, data)) is not None:
                    ports.setdefault(found[0], []).append(found[1])
    return ports


def _port(key: Key, data: Key) -> tuple[Addr, PortMapping] | None:
    """None for what is not as we make it."""
    *host, name, outside = key
    address, inside = data
    protocol = _PROTOCOLS.get(str(name))
    if protocol is None or not isinstance(outside, int) or not isinstance(inside, int):
        return None
    if not isinstance(address, IPv4Address | IPv6Address):
        return None
    here = host[0] if host and isinstance(host[0], IPv4Address | IPv6Address) else None
    return address, PortMapping(host_port=outside, container_port=inside, protocol=protocol, host_ip=here)
