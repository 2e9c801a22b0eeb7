"""Elements of hash sets and maps, straight to the kernel: what ADD and DEL do, in a tenth of the time.

libnftables lists tables, chains, sets and objects before each transaction, to know the types of a set it is
told about by name. We know them. One batch of ``NFT_MSG_NEWSETELEM`` and ``NFT_MSG_DELSETELEM`` (uapi
nf_tables.h) is one transaction as well. Whatever is not the plain case, and whatever fails, is libnftables'.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from towpath.kernel.nft_text import IFNAME
from towpath.kernel.wire import attr, nested
from towpath.model.nft import Field, Key, NftSet
from towpath.model.op import NftUpdate

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYS, _NEW_ELEMENTS, _DEL_ELEMENTS = 10, 10 << 8 | 12, 10 << 8 | 14
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR = 2
_NFPROTO_INET = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "jump": -3, "goto": -4, "return": -5}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_SECONDS = 5.0
# An attribute holds 64 kB, and an element takes up to 200 bytes.
_MANY = 250

_HEADER = Struct("=IHHII")
_ERROR = Struct("=i")
_CODE = Struct(">i")
_BATCH = bytes((0, 0)) + _SUBSYS.to_bytes(2, "big")
_INET = bytes((_NFPROTO_INET, 0, 0, 0))


class NotPlain(Exception):
    """An update that is not elements of hash sets alone, or a field whose type is not known here."""


def _ifname(value: Field) -> bytes:
    if not isinstance(value, str) or not IFNAME.fullmatch(value):
        raise NotPlain
    return value.encode().ljust(16, b"\0")


def _address(value: Field) -> bytes:
    if not isinstance(value, IPv4Address | IPv6Address):
        raise NotPlain
    return value.packed


def _protocol(value: Field) -> bytes:
    if not isinstance(value, str) or value not in _PROTOCOLS:
        raise NotPlain
    return bytes((_PROTOCOLS[value],))


def _port(value: Field) -> bytes:
    if not isinstance(value, int) or not 0 <= value < 65536:
        raise NotPlain
    return value.to_bytes(2, "big")


_FIELDS: dict[str, Callable[[Field], bytes]] = {
    "ifname": _ifname,
    "ipv4_addr": _address,
    "ipv6_addr": _address,
    "inet_proto": _protocol,
    "inet_service": _port,
}


def messages(update: NftUpdate) -> list[tuple[int, int, bytes]]:
    """Type, flags and body of what executes ``update``, without batch's begin and end. Raises NotPlain."""
    if update != NftUpdate(
        table=update.table, add_elements=update.add_elements, del_elements=update.del_elements
    ):
        raise NotPlain
    if sum(len(elements) for _, elements in (*update.del_elements, *update.add_elements)) > _MANY:
        raise NotPlain
    found = [
        (_DEL_ELEMENTS, 0, _body(update.table, s, elements))
        for s, elements in update.del_elements
        if elements
    ]
    found += [
        (_NEW_ELEMENTS, _CREATE, _body(update.table, s, elements))
        for s, elements in update.add_elements
        if elements
    ]
    if not found:
        raise NotPlain
    return found


def _body(table: str, decl: NftSet, elements: dict[Key, Key]) -> bytes:
    if decl.interval:
        raise NotPlain
    listed = b"".join(nested(_LIST_ELEM, _element(decl, key, data)) for key, data in elements.items())
    head = attr(_LIST_TABLE, table.encode() + b"\0") + attr(_LIST_SET, decl.name.encode() + b"\0")
    return _INET + head + nested(_LIST_ELEMENTS, listed)


def _element(decl: NftSet, key: Key, data: Key) -> bytes:
    body = nested(_ELEM_KEY, attr(_DATA_VALUE, _value(decl.key, key)))
    if decl.data == ("verdict",):
        return body + nested(_ELEM_DATA, nested(_DATA_VERDICT, _verdict(data)))
    if decl.data:
        return body + nested(_ELEM_DATA, attr(_DATA_VALUE, _value(decl.data, data)))
    return body


def _value(types: tuple[str, ...], fields: Key) -> bytes:
    """Fields in network order; in a concatenation each fills whole registers of four bytes."""
    if len(types) != len(fields) or not all(t in _FIELDS for t in types):
        raise NotPlain
    values = [_FIELDS[t](field) for t, field in zip(types, fields, strict=True)]
    if len(values) == 1:
        return values[0]
    return b"".join(value + bytes(-len(value) % 4) for value in values)


def _verdict(data: Key) -> bytes:
    if len(data) != 1 or not isinstance(data[0], str):
        raise NotPlain
    action, _, chain = data[0].partition(" ")
    if action not in _VERDICTS or bool(chain) != (action in ("jump", "goto")):
        raise NotPlain
    code = attr(_VERDICT_CODE, _CODE.pack(_VERDICTS[action]))
    return code + (attr(_VERDICT_CHAIN, chain.encode() + b"\0") if chain else b"")


class ElementSocket:
    """Executes such messages in the namespace of the thread that makes it. Raises OSError."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._sock.settimeout(_SECONDS)
        self._seq = 0

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def execute(self, parts: list[tuple[int, int, bytes]]) -> bool:
        """One transaction; False if the kernel refused it, and then nothing of it has happened.

        Acknowledged is the last element message: kernels before 6.10 answer neither begin nor end. Raises
        OSError, and then the outcome is unknown.
        """
        begin = self._seq + 1
        last = self._seq = begin + len(parts)
        batch = [_HEADER.pack(20, _BATCH_BEGIN, _REQUEST, begin, 0), _BATCH]
        for seq, (kind, flags, body) in enumerate(parts, begin + 1):
            ack = _ACK if seq == last else 0
            batch += (_HEADER.pack(16 + len(body), kind, _REQUEST | flags | ack, seq, 0), body)
        self._seq += 1
        batch += (_HEADER.pack(20, _BATCH_END, _REQUEST, self._seq, 0), _BATCH)
        self._sock.send(b"".join(batch))
        return self._answer(begin, last)

    def _answer(self, begin: int, last: int) -> bool:
        well = True
        while True:
            data = self._sock.recv(1 << 16)
            offset = 0
            while offset + _HEADER.size + _ERROR.size <= len(data):
                size, kind, _, seq, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR and begin <= seq <= last:
                    well = well and _ERROR.unpack_from(data, offset + _HEADER.size)[0] == 0
                    if seq in (begin, last):
                        return well
                offset += (size + 3) & ~3
