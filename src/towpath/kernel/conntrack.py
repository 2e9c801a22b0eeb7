"""Deleting the conntrack entries of an address, by ctnetlink.

The kernel is asked to list only entries of that address (CTA_FILTER, Linux 5.8), once as each of original
source, original destination and reply source (a translated destination); each is then deleted by its own
tuple and id. That it would delete by filter itself came only with 6.11.
"""

from collections.abc import Collection
from errno import ENOENT
from struct import Struct
from typing import Literal

from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.wire import attr, attributes, family, nested, u32
from towpath.model.net import Addr

Side = Literal["original source", "original destination", "reply source"]
SIDES: tuple[Side, ...] = ("original source", "original destination", "reply source")

_NETLINK_NETFILTER = 12
_CT_GET, _CT_DELETE = 0x0101, 0x0102
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO, _PROTO_NUM = 1, 2, 1
_SRC = {4: 1, 6: 3}
_DST = {4: 2, 6: 4}
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_FLAG_SRC, _FLAG_DST = 1, 2
_NFGEN = Struct("=BBH")
_GONE = frozenset({ENOENT})


class Conntrack:
    """The conntrack table of the namespace the calling thread is in when this is made. Raises OSError."""

    def __init__(self) -> None:
        self._sock = NetlinkSocket.open(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def flush(self, addr: Addr, protocol: int = 0, sides: Collection[Side] = SIDES) -> int:
        """Delete the entries of ``addr`` and return how many there were. Raises KernelRefused, OSError.

        ``protocol`` an IP protocol number, 0 for all. ``sides`` where the address is looked for; the kernel
        walks its whole table for each (4 ms at 262144 buckets).
        """
        head = _NFGEN.pack(family(addr), 0, 0)
        ids: dict[bytes, Message] = {}
        for body in _filters(addr, sides):
            for payload in self._sock.dump(_CT_GET, head + body):
                found = attributes(payload, 4)
                if protocol and _protocol(found[_TUPLE_ORIG]) != protocol:
                    continue
                wanted = attr(_TUPLE_ORIG | 0x8000, found[_TUPLE_ORIG]) + attr(_ID, found[_ID])
                if _ZONE in found:
                    wanted += attr(_ZONE, found[_ZONE])
                ids[found[_ID] + found[_TUPLE_ORIG]] = Message(_CT_DELETE, 0, head + wanted, _GONE)
        if ids:
            self._sock.request(list(ids.values()))
        return len(ids)


def _protocol(tuple_: bytes) -> int:
    number = attributes(attributes(tuple_).get(_TUPLE_PROTO, b"")).get(_PROTO_NUM, b"\0")
    return number[0]


def _filters(addr: Addr, sides: Collection[Side]) -> list[bytes]:
    raw, version = addr.packed, addr.version
    src, dst = attr(_SRC[version], raw), attr(_DST[version], raw)
    filters: dict[Side, bytes] = {
        "original source": _filter(_TUPLE_ORIG, src, _FILTER_ORIG, _FLAG_SRC),
        "original destination": _filter(_TUPLE_ORIG, dst, _FILTER_ORIG, _FLAG_DST),
        "reply source": _filter(_TUPLE_REPLY, src, _FILTER_REPLY, _FLAG_SRC),
    }
    return [body for side, body in filters.items() if side in sides]


def _filter(side: int, ip: bytes, flags: int, flag: int) -> bytes:
    return nested(side, nested(_TUPLE_IP, ip)) + nested(_FILTER, u32(flags, flag))
