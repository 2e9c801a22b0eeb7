"""Deleting the conntrack entries of an address or of published ports, by ctnetlink.

The kernel is asked to list only entries of that address (CTA_FILTER, Linux 5.8), once as each of original
source, original destination and reply source (a translated destination); each is then deleted by its own
tuple and id. That it would delete by filter itself came only with 6.11.

Of IPv6 addresses the filter tells the wrong half: all entries but those of the address (tried on 6.18; the
comparison in ctnetlink_filter_match_tuple seems to be the wrong way round). So nothing is believed that was
not looked at, and the filter is for IPv4 alone.
"""

from collections.abc import Callable, Collection, Mapping
from errno import ENOENT
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, IPPROTO_UDP
from struct import Struct
from typing import Literal

from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.wire import attr, attributes, family, nested, u32
from towpath.model.net import Addr

Side = Literal["original source", "original destination", "reply source"]
SIDES: tuple[Side, ...] = ("original source", "original destination", "reply source")

_NETLINK_NETFILTER = 12
CT_GET, _CT_DELETE, _CT_GET_STATS = 0x0101, 0x0102, 0x0105
_STATS_ENTRIES = 1
FEW = 4096
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _ID, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
_TUPLE_IP, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DPORT = 1, 2, 1, 3
_STATUS_SEEN_REPLY, _STATUS_SOURCE_TRANSLATED = 2, 16
_SRC = {4: 1, 6: 3}
_DST = {4: 2, 6: 4}
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_FLAG_SRC, _FLAG_DST, _FLAG_PROTO, _FLAG_DPORT = 1, 2, 8, 32
NFGEN = Struct("=BBH")
_VERSIONS = {int(AF_INET): 4, int(AF_INET6): 6}
_GONE = frozenset({ENOENT})


class Conntrack:
    """The conntrack table of the namespace the calling thread is in when this is made. Raises OSError."""

    def __init__(self) -> None:
        self._sock = NetlinkSocket.open(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def entries(self) -> int:
        """How many entries there are in all. Raises OSError."""
        (stats,) = self._sock.get([Message(_CT_GET_STATS, 0, NFGEN.pack(0, 0, 0))])
        return int.from_bytes(attributes(stats or b"", 4).get(_STATS_ENTRIES, b""), "big")

    def forget(self, addrs: Collection[Addr]) -> None:
        """Delete what pods at these addresses began and what was begun towards them, by whatever address.

        Calico looks in the same two places. Each question has the kernel walk its whole table (4 ms at 262144
        buckets), so with few entries all are asked for at once. Raises KernelRefused, OSError.
        """
        if not (entries := self.entries()):
            return
        if entries > FEW:
            for addr in addrs:
                self.flush(addr, sides=("original source", "reply source"))
            return
        packed = {addr.packed for addr in addrs}
        doomed = [
            deletion(payload[:4], found)
            for payload in self._sock.dump(CT_GET, NFGEN.pack(0, 0, 0))
            if any(raw in payload for raw in packed) and packed & _sources(found := attributes(payload, 4))
        ]
        if doomed:
            self._sock.request(doomed)

    def forget_ports(self, ports: Collection[tuple[int, int]], local: Callable[[Addr], bool]) -> int:
        """Delete what was begun towards ports of this node while nothing translated them; how many entries.

        ``ports`` are pairs of IP protocol number and port, ``local`` says whether an address is the node's.
        Without this, a client that keeps sending (UDP, or a first packet without an answer) keeps its old
        entry alive and never sees the new translation. What a process of the node answers over TCP or SCTP
        stays, and so does what only passes through. Raises KernelRefused, OSError.
        """
        if not ports or not (entries := self.entries()):
            return 0
        # Each question has the kernel walk its whole table. It filters one family at a time only.
        questions = [(0, b"")]
        if entries > FEW:
            questions = [(version, _port_filter(*port)) for port in ports for version in _VERSIONS]
        doomed = []
        for version, body in questions:
            for payload in self._sock.dump(CT_GET, NFGEN.pack(version, 0, 0) + body):
                found = attributes(payload, 4)
                version = _VERSIONS.get(payload[0], 0)
                if version and _begun_towards(found) in ports and _unheard(found, version, local):
                    doomed.append(deletion(payload[:4], found))
        if doomed:
            self._sock.request(doomed)
        return len(doomed)

    def forget_untranslated(self, overdue: Callable[[Addr, Addr], bool]) -> int:
        """Delete entries without an answer whose source nobody translated, and tell how many there were.

        ``overdue(source, destination)`` says whether it should have been; the destination is the translated
        one. An entry keeps its translation, or the want of one, for as long as packets come: what was begun
        while a rule was missing never gets an answer, and never ends. What was answered, works. Raises
        KernelRefused, OSError.
        """
        unheard = _STATUS_SEEN_REPLY | _STATUS_SOURCE_TRANSLATED
        # Before Linux 5.13 all entries come.
        body = attr(_STATUS, bytes(4)) + attr(_STATUS_MASK, unheard.to_bytes(4, "big"))
        doomed = []
        for payload in self._sock.dump(CT_GET, NFGEN.pack(0, 0, 0) + body):
            found = attributes(payload, 4)
            version = _VERSIONS.get(payload[0], 0)
            if not version or int.from_bytes(found.get(_STATUS, b""), "big") & unheard:
                continue
            asked = attributes(attributes(found[_TUPLE_ORIG]).get(_TUPLE_IP, b""))
            answer = attributes(attributes(found.get(_TUPLE_REPLY, b"")).get(_TUPLE_IP, b""))
            source, target = asked.get(_SRC[version], b""), answer.get(_SRC[version], b"")
            same = source == answer.get(_DST[version])
            if source and target and same and overdue(ip_address(source), ip_address(target)):
                doomed.append(deletion(payload[:4], found))
        if doomed:
            self._sock.request(doomed)
        return len(doomed)

    def flush(self, addr: Addr, protocol: int = 0, sides: Collection[Side] = SIDES) -> int:
        """Delete the entries of ``addr`` and return how many there were. Raises KernelRefused, OSError.

        ``protocol`` an IP protocol number, 0 for all. ``sides`` where the address is looked for; the kernel
        walks its whole table for each (4 ms at 262144 buckets).
        """
        told = [(payload[:4], attributes(payload, 4)) for payload in entries_of(self._sock, addr, sides)]
        doomed = [
            deletion(head, found) for head, found in told if protocol in (0, _protocol(found[_TUPLE_ORIG]))
        ]
        if doomed:
            self._sock.request(doomed)
        return len(doomed)


def entries_of(sock: NetlinkSocket, addr: Addr, sides: Collection[Side]) -> list[bytes]:
    """The entries in which ``addr`` is one of ``sides``, each once, as the kernel tells them.

    Raises KernelRefused, OSError.
    """
    head, raw = NFGEN.pack(family(addr), 0, 0), addr.packed
    found: dict[bytes, None] = {}
    for body in _filters(addr, sides) if addr.version == 4 else [b""]:
        told = sock.dump(CT_GET, head + body, lambda payload: raw in bytes(payload))
        found.update((payload, None) for payload in told if _has(attributes(payload, 4), addr, sides))
    return list(found)


def _has(found: Mapping[int, bytes], addr: Addr, sides: Collection[Side]) -> bool:
    places = {
        "original source": (_TUPLE_ORIG, _SRC),
        "original destination": (_TUPLE_ORIG, _DST),
        "reply source": (_TUPLE_REPLY, _SRC),
    }
    return any(
        attributes(attributes(found.get(of, b"")).get(_TUPLE_IP, b"")).get(end[addr.version]) == addr.packed
        for of, end in (places[side] for side in sides)
    )


def deletion(head: bytes, found: Mapping[int, bytes]) -> Message:
    """Of an entry by its attributes; ``head`` as it was told with."""
    wanted = attr(_TUPLE_ORIG | 0x8000, found[_TUPLE_ORIG]) + attr(_ID, found[_ID])
    if _ZONE in found:
        wanted += attr(_ZONE, found[_ZONE])
    return Message(_CT_DELETE, 0, head + wanted, _GONE)


def _sources(found: Mapping[int, bytes]) -> set[bytes]:
    """Who began a flow, and who answers it."""
    return {
        attributes(attributes(found.get(side, b"")).get(_TUPLE_IP, b"")).get(number, b"")
        for side in (_TUPLE_ORIG, _TUPLE_REPLY)
        for number in _SRC.values()
    }


def _begun_towards(found: Mapping[int, bytes]) -> tuple[int, int]:
    """Protocol number and destination port, 0 where the protocol has none."""
    proto = attributes(attributes(found[_TUPLE_ORIG]).get(_TUPLE_PROTO, b""))
    return proto.get(_PROTO_NUM, b"\0")[0], int.from_bytes(proto.get(_PROTO_DPORT, b""), "big")


def _unheard(found: Mapping[int, bytes], version: int, local: Callable[[Addr], bool]) -> bool:
    """Whether an entry goes to the node itself, untranslated, and has no connection to lose."""
    to = attributes(attributes(found[_TUPLE_ORIG]).get(_TUPLE_IP, b"")).get(_DST[version], b"")
    answers = attributes(attributes(found.get(_TUPLE_REPLY, b"")).get(_TUPLE_IP, b"")).get(_SRC[version], b"")
    connected = _protocol(found[_TUPLE_ORIG]) != IPPROTO_UDP and (
        int.from_bytes(found.get(_STATUS, b""), "big") & _STATUS_SEEN_REPLY
    )
    return bool(to) and to == answers and not connected and local(ip_address(to))


def _port_filter(protocol: int, port: int) -> bytes:
    proto = attr(_PROTO_NUM, bytes((protocol,))) + attr(_PROTO_DPORT, port.to_bytes(2, "big"))
    flags = nested(_FILTER, u32(_FILTER_ORIG, _FLAG_PROTO | _FLAG_DPORT))
    return nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, proto)) + flags


def _protocol(tuple_: bytes) -> int:
    number = attributes(attributes(tuple_).get(_TUPLE_PROTO, b"")).get(_PROTO_NUM, b"\0")
    return number[0]


def _filters(addr: Addr, sides: Collection[Side]) -> list[bytes]:
    """Bodies of requests for the entries of an address, one a side."""
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
