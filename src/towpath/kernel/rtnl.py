"""Addresses, routes, neighbours and forwarding entries as rtnetlink messages, and back.

Each ``encode_*`` takes the device's index and makes the request to add (or replace) or to delete; each
``decode_*`` gives None for what the model does not speak of.
"""

from collections.abc import Mapping
from errno import EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from socket import AF_INET, AF_INET6
from struct import Struct
from typing import Literal

from towpath.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Message
from towpath.kernel.wire import address, attr, attributes, family, mac_bytes, mac_text, u32, unpack_u32
from towpath.model.net import Address, Fdb, Neighbour, Route

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
AF_BRIDGE = 7

_ADDRESS, _LOCAL, _FLAGS, _NODAD = 1, 2, 8, 0x02
_DST, _OIF, _GATEWAY, _PREFSRC, _METRICS, _MULTIPATH, _TABLE = 1, 4, 5, 7, 8, 9, 15
_METRIC_MTU = 2
_PROTO_KERNEL, _PROTO_BOOT, _UNICAST, _ONLINK, _CLONED = 2, 3, 1, 4, 0x200
_SCOPE_NOWHERE = 255
_NDA_DST, _NDA_LLADDR = 1, 2
_PERMANENT, _SELF = 0x80, 0x02

_IFADDR = Struct("=BBBBI")
_RTMSG = Struct("=BBBBBBBBI")
_NDMSG = Struct("=BBHiHBB")
_PUT = NLM_F_CREATE | NLM_F_REPLACE
_GONE = frozenset({ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL})

_Scope = Literal["global", "link", "host"]
_SCOPE: dict[str, int] = {"global": 0, "link": 253, "host": 254}
_SCOPE_NAME: dict[int, _Scope] = {253: "link", 254: "host"}

DUMP_ADDRESSES = _IFADDR.pack(0, 0, 0, 0, 0)
DUMP_ROUTES4 = _RTMSG.pack(AF_INET, 0, 0, 0, 0, 0, 0, _UNICAST, 0)
DUMP_ROUTES6 = _RTMSG.pack(AF_INET6, 0, 0, 0, 0, 0, 0, _UNICAST, 0)
DUMP_NEIGHBOURS4 = _NDMSG.pack(AF_INET, 0, 0, 0, 0, 0, 0)
DUMP_NEIGHBOURS6 = _NDMSG.pack(AF_INET6, 0, 0, 0, 0, 0, 0)
DUMP_FDB = _NDMSG.pack(AF_BRIDGE, 0, 0, 0, 0, 0, 0)


def encode_address(item: Address, index: int, *, remove: bool = False) -> Message:
    """RTM_NEWADDR or RTM_DELADDR. IPv6 without duplicate address detection."""
    ip = item.interface.ip
    head = _IFADDR.pack(family(ip), item.interface.network.prefixlen, 0, _SCOPE[item.scope], index)
    body = head + attr(_LOCAL, ip.packed) + attr(_ADDRESS, ip.packed)
    if remove:
        return Message(RTM_DELADDR, 0, body, _GONE)
    return Message(RTM_NEWADDR, _PUT, body + (u32(_FLAGS, _NODAD) if ip.version == 6 else b""))


def decode_address(payload: bytes, names: Mapping[int, str]) -> Address | None:
    """An address; None on a device that is gone by now."""
    _, prefix, _, scope, index = _IFADDR.unpack_from(payload)
    found = attributes(payload, 8)
    raw = found.get(_LOCAL) or found.get(_ADDRESS)
    dev = names.get(index)
    if raw is None or dev is None:
        return None
    interface = IPv4Interface((raw, prefix)) if len(raw) == 4 else IPv6Interface((raw, prefix))
    return Address(dev=dev, interface=interface, scope=_SCOPE_NAME.get(scope, "global"))


def encode_route(item: Route, index: int, *, remove: bool = False) -> Message:
    """RTM_NEWROUTE (protocol boot, as flanneld and Calico leave theirs) or RTM_DELROUTE (any protocol)."""
    table = item.table if item.table < 256 else 0
    version = family(item.dst.network_address)
    prefix, dst = item.dst.prefixlen, item.dst.network_address.packed
    protocol, scope = (0, _SCOPE_NOWHERE) if remove else (_PROTO_BOOT, _SCOPE[item.scope])
    flags = _ONLINK if item.onlink else 0
    body = _RTMSG.pack(version, prefix, 0, 0, table, protocol, scope, _UNICAST, flags) + u32(_OIF, index)
    if prefix:
        body += attr(_DST, dst)
    if item.via is not None:
        body += attr(_GATEWAY, item.via.packed)
    if item.table > 255:
        body += u32(_TABLE, item.table)
    if remove:
        return Message(RTM_DELROUTE, 0, body, _GONE)
    if item.src is not None:
        body += attr(_PREFSRC, item.src.packed)
    if item.mtu:
        body += attr(_METRICS, u32(_METRIC_MTU, item.mtu))
    return Message(RTM_NEWROUTE, _PUT, body)


def decode_route(payload: bytes, names: Mapping[int, str]) -> Route | None:
    """A unicast route over one device that somebody set.

    None for others: those the kernel made itself (protocol kernel) belong to their address.
    """
    version, prefix, _, _, table, protocol, scope, kind, flags = _RTMSG.unpack_from(payload)
    if kind != _UNICAST or protocol == _PROTO_KERNEL or flags & _CLONED:
        return None
    found = attributes(payload, 12)
    if (
        _MULTIPATH in found
        or (oif := found.get(_OIF)) is None
        or (dev := names.get(unpack_u32(oif)[0])) is None
    ):
        return None
    gateway, src, metrics = found.get(_GATEWAY), found.get(_PREFSRC), found.get(_METRICS)
    mtu = attributes(metrics).get(_METRIC_MTU) if metrics is not None else None
    wide = found.get(_TABLE)
    dst = found.get(_DST, bytes(4) if version == AF_INET else bytes(16))
    return Route(
        dst=IPv4Network((dst, prefix)) if version == AF_INET else IPv6Network((dst, prefix)),
        dev=dev,
        via=None if gateway is None else address(gateway),
        onlink=bool(flags & _ONLINK),
        scope="link" if _SCOPE_NAME.get(scope) == "link" else "global",
        src=None if src is None else address(src),
        table=table if wide is None else unpack_u32(wide)[0],
        mtu=0 if mtu is None else unpack_u32(mtu)[0],
    )


def encode_neighbour(item: Neighbour, index: int, *, remove: bool = False) -> Message:
    """A permanent RTM_NEWNEIGH, or RTM_DELNEIGH."""
    body = _NDMSG.pack(family(item.addr), 0, 0, index, _PERMANENT, 0, 0) + attr(_NDA_DST, item.addr.packed)
    if remove:
        return Message(RTM_DELNEIGH, 0, body, _GONE)
    return Message(RTM_NEWNEIGH, _PUT, body + attr(_NDA_LLADDR, mac_bytes(item.mac)))


def decode_neighbour(payload: bytes, names: Mapping[int, str]) -> Neighbour | None:
    """A permanent neighbour."""
    _, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
    if not state & _PERMANENT or (dev := names.get(index)) is None:
        return None
    found = attributes(payload, 12)
    addr, mac = found.get(_NDA_DST), found.get(_NDA_LLADDR)
    if addr is None or mac is None or len(mac) != 6:
        return None
    return Neighbour(dev=dev, addr=address(addr), mac=mac_text(mac))


def encode_fdb(item: Fdb, index: int, *, remove: bool = False) -> Message:
    """A permanent entry of the device's own table (NTF_SELF)."""
    body = _NDMSG.pack(AF_BRIDGE, 0, 0, index, _PERMANENT, _SELF, 0)
    body += attr(_NDA_LLADDR, mac_bytes(item.mac)) + attr(_NDA_DST, item.dst.packed)
    return Message(RTM_DELNEIGH, 0, body, _GONE) if remove else Message(RTM_NEWNEIGH, _PUT, body)


def decode_fdb(payload: bytes, names: Mapping[int, str]) -> Fdb | None:
    """A permanent entry that names a tunnel endpoint; a device's multicast list has none."""
    _, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
    if not state & _PERMANENT or (dev := names.get(index)) is None:
        return None
    found = attributes(payload, 12)
    mac, dst = found.get(_NDA_LLADDR), found.get(_NDA_DST)
    if mac is None or dst is None or len(mac) != 6:
        return None
    return Fdb(dev=dev, mac=mac_text(mac), dst=address(dst))
