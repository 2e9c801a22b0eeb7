"""Addresses for Towpath's own kinds of network: what ``ipam`` says, turned into addresses, routes, DNS. Pure.

``static`` is done here, as the reference plugin of that name does it; other types are plugins, and their
results are read here.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.cni.fold import fold
from towpath.cni.result import IPConfig, Result, WireDns, WireRoute
from towpath.model.net import Addr, Iface


class BadAddresses(Exception):
    """The addresses that are configured or asked for make no sense; the text says which."""


class _Address(msgspec.Struct, frozen=True):
    address: str
    gateway: str = ""


class _Static(msgspec.Struct, frozen=True):
    addresses: list[_Address] = []
    routes: list[WireRoute] = []
    dns: WireDns = WireDns()


def static(ipam: Mapping[str, Any], asked: Sequence[str]) -> Result:
    """The configured addresses; those ``asked`` for by the pod take their place, with or without a prefix.

    One without a prefix length takes that of the configured address's network that it lies in.
    Raises BadAddresses.
    """
    try:
        wire = msgspec.convert(fold(dict(ipam)), _Static)
        configured = [_typed(one) for one in wire.addresses]
        routes = tuple(route.typed() for route in wire.routes)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadAddresses(f"ipam: {error}") from error
    ips = [_wanted(text, configured) for text in asked] if asked else configured
    if not ips:
        raise BadAddresses("ipam of type static has no addresses, and the pod asks for none")
    seen: set[Addr] = set()
    for ip in ips:
        if ip.address.ip in seen:
            raise BadAddresses(f"address {ip.address.ip} is there twice")
        seen.add(ip.address.ip)
    return Result(ips=tuple(ips), routes=routes, dns=wire.dns.typed())


def _typed(one: _Address) -> IPConfig:
    if "/" not in one.address:
        raise ValueError(f"address {one.address!r} has no prefix length")
    gateway = ip_address(one.gateway) if one.gateway else None
    return IPConfig(address=ip_interface(one.address), gateway=gateway)


def _wanted(text: str, configured: Sequence[IPConfig]) -> IPConfig:
    found: Iface = ip_interface(text)
    inside = next((one for one in configured if found.ip in one.address.network), None)
    if "/" not in text:
        if inside is None:
            known = ", ".join(str(one.address.network) for one in configured) or "none"
            raise BadAddresses(
                f"address {text} is outside of the network's own ({known}); write it with its prefix length, "
                "or add an address of its network to ipam.addresses"
            )
        return IPConfig(
            address=ip_interface((found.ip, inside.address.network.prefixlen)), gateway=inside.gateway
        )
    return IPConfig(address=found, gateway=inside.gateway if inside else None)


def of_interface(result: Result, index: int) -> Result:
    """An IPAM plugin's result, with its addresses on one interface."""
    return replace(result, ips=tuple(replace(ip, interface=index) for ip in result.ips))
