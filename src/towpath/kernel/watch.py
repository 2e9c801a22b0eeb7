"""Hearing of changes: multicast netlink, as hints to look again (``observe``), never as data."""

import asyncio
import socket
import sys
from collections.abc import Callable
from errno import EAGAIN, ENOBUFS
from fcntl import ioctl
from struct import Struct
from typing import Literal

from towpath.kernel import links, rtnl, tc
from towpath.kernel.netlink import NetlinkSocket
from towpath.kernel.wire import attributes, string, unpack_u32

Kind = Literal[
    "link", "unlink", "address", "route", "neighbour", "fdb", "qdisc", "sysctl", "nft", "flushed", "overrun"
]

_SOL_NETLINK, _ADD_MEMBERSHIP, _NETLINK_NETFILTER = 270, 1, 12
# RTNLGRP_LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_NETCONF
_ROUTE_GROUPS = (1, 3, 4, 5, 7, 9, 11, 24, 25)
_NFT_GROUP = 7  # NFNLGRP_NFTABLES
_NFT_SUBSYSTEM, _NFPROTO_INET, _NFT_DELTABLE, _NFT_NEWGEN = 10, 1, 2, 15
_RTM_NEWNETCONF, _NETCONF_INDEX = 80, 1
_SIOCGIFNAME = 0x8910
_IFREQ = Struct("=16si20x")
_HEADER = Struct("=IHHII")
_NDMSG = Struct("=BBHiHBB")
_RTMSG = Struct("=BBBBBBBBI")
_PERMANENT, _UNICAST, _PROTO_KERNEL, _CLONED = 0x80, 1, 2, 0x200
_NDA_DST, _NDA_LLADDR, _RTA_OIF = 1, 2, 4
_TC_KINDS = frozenset({tc.RTM_NEWQDISC, tc.RTM_DELQDISC, tc.RTM_NEWTFILTER, tc.RTM_DELTFILTER})
_DATAGRAMS = 256


class NetlinkWatch:
    """Tells ``changed(kind, name)`` in the event loop, at most once a pair and wake-up.

    ``name`` is the device's; of kind "nft" the table's (family inet only); of "overrun" empty: so much has
    changed that the kernel dropped messages, so everything may have. "unlink" is a device's removal; it
    comes while the kernel still takes the device apart. "flushed" is the removal of a table; "sysctl" a
    device's forwarding or proxying, without a name that of all (the kernel tells of no other settings). What
    other state the kernel reports without being asked for (neighbours it learned or forgot, routes it made)
    is left out. Own changes are heard too.
    """

    def __init__(self, changed: Callable[[Kind, str], None], *, nft: bool = True) -> None:
        """Watches the calling thread's namespace, from now on. Raises OSError."""
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._route = _listen(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
        self._nft = _listen(_NETLINK_NETFILTER, (_NFT_GROUP,)) if nft else None
        ask = NetlinkSocket.open()
        try:
            self._names = {dev.index: dev.name for dev in links.devices(ask)}
            self._permanent: set[tuple[bytes, ...]] = set()
            for body in (rtnl.DUMP_NEIGHBOURS4, rtnl.DUMP_NEIGHBOURS6, rtnl.DUMP_FDB):
                for payload in ask.dump(rtnl.RTM_GETNEIGH, body):
                    self._neighbour(rtnl.RTM_NEWNEIGH, payload)
        finally:
            ask.close()

    def start(self) -> None:
        """Report to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._route, self._read, self._route, self._heard_route)
        if self._nft is not None:
            self._loop.add_reader(self._nft, self._read, self._nft, self._heard_nft)

    def close(self) -> None:
        """Hear no more; once more is no error."""
        for sock in (self._route, self._nft):
            if sock is not None and sock.fileno() >= 0:
                if self._loop is not None:
                    self._loop.remove_reader(sock)
                sock.close()

    def _read(self, sock: socket.socket, heard: Callable[[int, bytes], tuple[Kind, str] | None]) -> None:
        pairs: dict[tuple[Kind, str], None] = {}
        for _ in range(_DATAGRAMS):
            try:
                data = sock.recv(1 << 16)
            except OSError as error:
                if error.errno == EAGAIN:
                    break
                if error.errno != ENOBUFS:
                    raise
                pairs["overrun", ""] = None
                continue
            offset = 0
            while offset + 16 <= len(data):
                size, kind = _HEADER.unpack_from(data, offset)[:2]
                if (pair := heard(kind, data[offset + 16 : offset + size])) is not None:
                    pairs[pair] = None
                offset += (max(size, 16) + 3) & ~3
        for pair in pairs:
            self._changed(*pair)

    def _heard_route(self, kind: int, payload: bytes) -> tuple[Kind, str] | None:
        match kind:
            case links.RTM_NEWLINK | links.RTM_DELLINK:
                return self._link(kind, payload)
            case rtnl.RTM_NEWADDR | rtnl.RTM_DELADDR:
                return "address", self._name(unpack_u32(payload, 4)[0])
            case rtnl.RTM_NEWROUTE | rtnl.RTM_DELROUTE:
                return self._route_changed(payload)
            case rtnl.RTM_NEWNEIGH | rtnl.RTM_DELNEIGH:
                return self._neighbour(kind, payload)
            case _ if kind == _RTM_NEWNETCONF:
                return "sysctl", self._setting_of(payload)
            case _ if kind in _TC_KINDS:
                return "qdisc", self._name(unpack_u32(payload, 4)[0])
        return None

    def _link(self, kind: int, payload: bytes) -> tuple[Kind, str] | None:
        if payload[0] != 0:  # a bridge port's own state, not the device's
            return None
        dev = links.decode(payload)
        if kind == links.RTM_DELLINK:
            self._names.pop(dev.index, None)
            return "unlink", dev.name
        self._names[dev.index] = dev.name
        return "link", dev.name

    def _route_changed(self, payload: bytes) -> tuple[Kind, str] | None:
        _, _, _, _, _, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
        if kind != _UNICAST or protocol == _PROTO_KERNEL or flags & _CLONED:
            return None
        oif = attributes(payload, 12).get(_RTA_OIF)
        return "route", self._name(unpack_u32(oif)[0]) if oif is not None else ""

    def _neighbour(self, kind: int, payload: bytes) -> tuple[Kind, str] | None:
        """Permanent entries, and those that were: others come and go by themselves."""
        family, _, _, index, state, _, _ = _NDMSG.unpack_from(payload)
        found = attributes(payload, 12)
        mac = found.get(_NDA_LLADDR, b"") if family == rtnl.AF_BRIDGE else b""
        entry = (payload[:1], payload[4:8], found.get(_NDA_DST, b""), mac)
        if kind == rtnl.RTM_NEWNEIGH and state & _PERMANENT:
            self._permanent.add(entry)
        elif entry in self._permanent:
            self._permanent.discard(entry)
        else:
            return None
        return "fdb" if family == rtnl.AF_BRIDGE else "neighbour", self._name(index)

    def _heard_nft(self, kind: int, payload: bytes) -> tuple[Kind, str] | None:
        if kind >> 8 != _NFT_SUBSYSTEM or kind & 0xFF == _NFT_NEWGEN or payload[:1] != bytes([_NFPROTO_INET]):
            return None
        table = attributes(payload, 4).get(1)  # the table's name, in messages of every kind
        if table is None:
            return None
        return "flushed" if kind & 0xFF == _NFT_DELTABLE else "nft", string(table)

    def _setting_of(self, payload: bytes) -> str:
        index = attributes(payload, 4).get(_NETCONF_INDEX, b"")
        number = int.from_bytes(index, sys.byteorder, signed=True)
        return self._name(number) if number > 0 else ""

    def _name(self, index: int) -> str:
        """The device's name, remembered beyond its end; empty for one never heard of."""
        if (name := self._names.get(index)) is not None:
            return name
        try:
            raw: bytes = _IFREQ.unpack(ioctl(self._route, _SIOCGIFNAME, _IFREQ.pack(b"", index)))[0]
        except OSError:
            return ""
        return raw.rstrip(b"\0").decode(errors="replace")


def _listen(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_NETLINK, flags, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((0, 0))  # a socket without an address of its own is passed over by broadcasts
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock
