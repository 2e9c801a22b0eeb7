"""Tracked connections as flows, and the deletion of exactly those.

The kernel tells the whole table, or what one address has (CTA_FILTER); what is of no interest is passed over
by its bytes, a microsecond each, before anything of it is read.
"""

from collections.abc import Collection, Iterable
from socket import AF_INET, AF_INET6
from typing import NamedTuple

from towpath.desired.revocation import Flow
from towpath.kernel.conntrack import CT_GET, NFGEN, deletion, entries_of
from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.wire import address, attributes, unpack_head
from towpath.model.net import Addr

_NETLINK_NETFILTER = 12
_ORIG, _REPLY, _STATUS, _TIMEOUT, _ID, _ZONE = 1, 2, 3, 7, 12, 18
_IP, _PROTO, _NUMBER, _SPORT, _DPORT = 1, 2, 1, 2, 3
_SOURCE = {4: 1, 16: 3}
_TYPE_AND_CODE = {1: (5, 6), 58: (8, 9)}
_EXPECTED = 1  # let in as related to another, whatever policy says of it
_SIZES = {int(AF_INET): 4, int(AF_INET6): 16}
# With more addresses than this the whole table is asked for.
_SINGLE = 4


class Tracked(NamedTuple):
    """A flow, the seconds conntrack will remember it if nothing more comes, and what deletes its entry."""

    flow: Flow
    seconds: int
    deletion: Message


class FlowTable:
    """The conntrack table of the namespace the calling thread is in when this is made. Raises OSError."""

    def __init__(self) -> None:
        self._sock = NetlinkSocket.open(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def flows(self, addresses: Collection[Addr]) -> list[Tracked]:
        """Those that one of ``addresses`` began or answers. Left out is what conntrack let in as related to
        another flow, and what others track in zones of their own. Raises KernelRefused, OSError.
        """
        payloads: dict[bytes, None] = {}
        if len(addresses) <= _SINGLE:
            for one in addresses:
                found = entries_of(self._sock, one, ("original source", "reply source"))
                payloads.update(dict.fromkeys(found))
        else:
            packed = {one.packed for one in addresses}
            whole = self._sock.dump(CT_GET, NFGEN.pack(0, 0, 0), lambda payload: _concerns(payload, packed))
            payloads.update(dict.fromkeys(whole))
        return [entry for payload in payloads if (entry := tracked(payload)) is not None]

    def delete(self, flows: Iterable[Tracked]) -> None:
        """Exactly these; what is gone is gone. Raises KernelRefused, OSError."""
        self._sock.request([one.deletion for one in flows])


def _concerns(payload: memoryview, packed: Collection[bytes]) -> bool:
    """Both tuples come first, and begin with their source address (ctnetlink_fill_info)."""
    size = _SIZES.get(payload[0])
    if size is None or len(payload) < 64:
        return False
    reply = unpack_head(payload, 4)[0] + 16
    return bytes(payload[16 : 16 + size]) in packed or bytes(payload[reply : reply + size]) in packed


def tracked(payload: bytes) -> Tracked | None:
    """None for what is none of ours, or cannot be read."""
    found = attributes(payload, 4)
    if _ZONE in found or int.from_bytes(found.get(_STATUS, b""), "big") & _EXPECTED:
        return None
    original, reply = attributes(found.get(_ORIG, b"")), attributes(found.get(_REPLY, b""))
    source, destination = _source(original), _source(reply)
    proto, back = attributes(original.get(_PROTO, b"")), attributes(reply.get(_PROTO, b""))
    if source is None or destination is None or source.version != destination.version:
        return None
    if not proto.get(_NUMBER) or _ID not in found:
        return None
    number = proto[_NUMBER][0]
    if number in _TYPE_AND_CODE:
        kind, code = _TYPE_AND_CODE[number]
        first, second, answer = (
            _of(part, field) for part, field in ((proto, kind), (proto, code), (back, kind))
        )
    else:
        first, second, answer = _of(proto, _SPORT), _of(back, _SPORT), 0
    seconds = int.from_bytes(found.get(_TIMEOUT, b""), "big")
    flow = Flow(source, destination, number, first, second, answer)
    return Tracked(flow, seconds, deletion(payload[:4], found))


def _source(part: dict[int, bytes]) -> Addr | None:
    ip = attributes(part.get(_IP, b""))
    for size, kind in _SOURCE.items():
        if len(ip.get(kind, b"")) == size:
            return address(ip[kind])
    return None


def _of(part: dict[int, bytes], field: int) -> int:
    return int.from_bytes(part.get(field, b""), "big")
