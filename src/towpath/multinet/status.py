"""The annotation ``k8s.v1.cni.cncf.io/network-status``: what became of a pod's networks. Pure.

Source: de-facto standard, section 5; ``mtu`` and ``gateway`` as Multus adds them. Addresses without prefix
length, as Multus and all who read it have them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from towpath.cni.result import Interface, IPConfig, Result

STATUS = "k8s.v1.cni.cncf.io/network-status"
LEGACY_STATUS = "k8s.v1.cni.cncf.io/networks-status"
"""Its name before Multus 4.0, with the same content; some still read it."""


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """``name`` of the network; ``ifname`` what its interface was to be called; ``mtu`` where it is known
    better than the result says. ``device`` as its device-info file has it.
    """

    name: str
    ifname: str
    result: Result
    default: bool = False
    gateways: tuple[str, ...] = ()
    mtu: int = 0
    device: dict[str, Any] | None = None


def network_status(attached: Sequence[Attached]) -> str:
    """The annotation's value."""
    return msgspec.json.format(msgspec.json.encode([_entry(one) for one in attached]), indent=4).decode()


def own_interface(result: Result) -> tuple[int | None, Interface | None]:
    """The first interface in a sandbox, with its index (5.1.1)."""
    for index, interface in enumerate(result.interfaces):
        if interface.sandbox:
            return index, interface
    return None, None


def own_ips(result: Result) -> tuple[IPConfig, ...]:
    """The addresses of that interface; without one, those that belong to no interface (5.3.3.1)."""
    index, _ = own_interface(result)
    if index is None:
        return tuple(ip for ip in result.ips if ip.interface is None or ip.interface < 0)
    return tuple(ip for ip in result.ips if ip.interface is None or ip.interface == index)


def _entry(one: Attached) -> dict[str, Any]:
    _, interface = own_interface(one.result)
    gateways = list(one.gateways) or _gateways(one.result)
    entry: dict[str, Any] = {
        "name": one.name,
        "interface": interface.name if interface is not None else one.ifname,
        "ips": [str(ip.address.ip) for ip in own_ips(one.result)],
        "mac": interface.mac if interface is not None else "",
        "mtu": one.mtu or (interface.mtu if interface is not None else 0),
    }
    entry = {key: value for key, value in entry.items() if value}
    entry["default"] = one.default
    dns = one.result.dns
    told = {
        "nameservers": dns.nameservers,
        "domain": dns.domain,
        "search": dns.search,
        "options": dns.options,
    }
    entry["dns"] = {key: value for key, value in told.items() if value}
    if one.device is not None:
        entry["device-info"] = one.device
    if gateways:
        entry["gateway"] = gateways
    return entry


def _gateways(result: Result) -> list[str]:
    """Where the default routes lead."""
    return list(dict.fromkeys(str(r.gw) for r in result.routes if r.dst.prefixlen == 0 and r.gw is not None))
