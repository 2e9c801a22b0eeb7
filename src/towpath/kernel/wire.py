"""Netlink's wire form: attributes and addresses. Pure functions over bytes, host byte order (netlink(7)).

Message bodies are built by concatenation, which is what CPython does fastest: a whole pod is some 900 bytes.
"""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from struct import Struct

from towpath.model.net import Addr

NLA_F_NESTED = 0x8000
_TYPE_MASK = 0x3FFF

_HEAD = Struct("=HH")
_U32 = Struct("=I")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

unpack_u32 = _U32.unpack_from
pack_head = _HEAD.pack
unpack_head = _HEAD.unpack_from


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(payload)
    return pack_head(size + 4, kind) + payload + _PAD[size & 3]


def nested(kind: int, payload: bytes) -> bytes:
    """An attribute that holds attributes, marked as such (rtnetlink's older parts take it unmarked)."""
    return pack_head(len(payload) + 4, kind | NLA_F_NESTED) + payload


def u8(kind: int, value: int) -> bytes:
    """An 8 bit attribute."""
    return attr(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """A 32 bit attribute, host order."""
    return pack_head(8, kind) + _U32.pack(value)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attr(kind, value.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes of ``data`` from ``offset`` on, by type; a truncated one ends the reading."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        size, kind = unpack_head(data, offset)
        if size < 4 or offset + size > end:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def listed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """As ``attributes``, in order and with repeated types."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        size, kind = unpack_head(data, offset)
        if size < 4 or offset + size > end:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def string(payload: bytes) -> str:
    """A string attribute's text."""
    return payload.rstrip(b"\0").decode(errors="replace")


@lru_cache(maxsize=4096)
def mac_bytes(mac: str) -> bytes:
    """``"ee:ee:ee:ee:ee:ee"`` as six bytes. Raises ValueError."""
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{mac!r} is not a MAC address")
    return raw


def mac_text(raw: bytes) -> str:
    """Six bytes as lower case hex with colons."""
    return raw.hex(":")


def family(addr: Addr) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if addr.version == 4 else AF_INET6


@lru_cache(maxsize=8192)
def address(raw: bytes) -> Addr:
    """An address from its 4 or 16 bytes."""
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
