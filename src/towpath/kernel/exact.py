"""What the kernel would not tell again as it was told is refused: else reconciliation would never rest."""

from ipaddress import IPv6Address

from towpath.kernel.wire import mac_bytes
from towpath.model.net import Address, Fdb, Neighbour, Redirect, Route, Shaper

_U32 = 0xFFFFFFFF


def check(item: Address | Route | Neighbour | Fdb | Shaper | Redirect) -> None:
    """Raises ValueError with the reason."""
    match item:
        case Route():
            if item.dst.version == 6 and item.scope != "global":
                raise ValueError("IPv6 routes have no scope: the kernel would tell it as global")
            if impossible(item):
                raise ValueError("a route's gateway and source are of its destination's family")
            if item.onlink and item.via is None:
                raise ValueError("onlink speaks of a gateway, and there is none")
        case Address():
            if isinstance(item.interface.ip, IPv6Address) and item.scope != _scope(item.interface.ip):
                raise ValueError(
                    f"an IPv6 address's own scope is what the kernel would tell, not {item.scope}"
                )
        case Neighbour() | Fdb():
            check_mac(item.mac)
        case Shaper():
            if item.rate < 8 or item.burst < 8 or item.rate % 8 or item.burst % 8:
                raise ValueError("the kernel counts whole bytes: rate and burst must be multiples of 8 bits")
            if item.rate // 8 * item.latency // 1000 + item.burst // 8 > _U32:
                raise ValueError("rate times latency exceeds what tbf can be told (4 GiB)")


def impossible(item: Address | Route | Neighbour | Fdb | Shaper | Redirect) -> bool:
    """Whether no kernel can hold it, so that deleting it is done."""
    if not isinstance(item, Route):
        return False
    return any(a is not None and a.version != item.dst.version for a in (item.via, item.src))


def check_mac(mac: str) -> None:
    """Raises ValueError for one that is not six bytes in lower case with colons."""
    if mac_bytes(mac).hex(":") != mac:
        raise ValueError(f"{mac!r} is not a MAC address in lower case with colons")


def _scope(ip: IPv6Address) -> str:
    if ip.is_loopback:
        return "host"
    return "link" if ip.is_link_local else "global"
