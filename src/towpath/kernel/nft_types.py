"""Values of nftables' types and their bytes in the kernel: keys of sets, data of maps, ends of intervals.

Concatenated fields each fill whole registers of four bytes. Numbers that packets carry are in network order,
those that only the host knows (marks, class identifiers) in its own.
"""

import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

from towpath.kernel.nft_text import IFNAME, PROTOCOLS
from towpath.model.nft import Field, Key


class NotPlain(Exception):
    """A type or a value that only libnftables knows the form of, or has to refuse in its own words."""


class _Type(NamedTuple):
    """``number`` is userspace's name for the type, stored with each set (libnftables' ``enum datatypes``).

    ``ranges``: its values are numbers. ``host``: in the host's order, except in interval sets, where the
    kernel compares byte by byte and rules convert what they look up.
    """

    number: int
    size: int
    encode: Callable[[Field], bytes]
    decode: Callable[[bytes], Field]
    ranges: bool = False
    host: bool = False


_PROTOCOL_NAMES = {number: text for text, number in PROTOCOLS.items()}
VERDICT, _VERDICT_NUMBERS = ("verdict",), (1, 0xFFFFFF00)
# The flag of an element that is the first value behind an interval.
INTERVAL_END = 1


def _number(size: int, order: Literal["big", "little"]) -> Callable[[Field], bytes]:
    def encode(value: Field) -> bytes:
        if not isinstance(value, int) or not 0 <= value < 1 << 8 * size:
            raise NotPlain
        return value.to_bytes(size, order)

    return encode


def _ifname(value: Field) -> bytes:
    if not isinstance(value, str) or not IFNAME.fullmatch(value):
        raise NotPlain
    return value.encode().ljust(16, b"\0")


def _address4(value: Field) -> bytes:
    if not isinstance(value, IPv4Address):
        raise NotPlain
    return value.packed


def _address6(value: Field) -> bytes:
    if not isinstance(value, IPv6Address):
        raise NotPlain
    return value.packed


def _protocol(value: Field) -> bytes:
    number = PROTOCOLS.get(value) if isinstance(value, str) else value
    if not isinstance(number, int) or not 0 <= number < 256:
        raise NotPlain
    return bytes((number,))


def _protocol_name(raw: bytes) -> Field:
    return _PROTOCOL_NAMES.get(raw[0], raw[0])


def _big(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _host(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


_TYPES: dict[str, _Type] = {
    "ipv4_addr": _Type(7, 4, _address4, IPv4Address, ranges=True),
    "ipv6_addr": _Type(8, 16, _address6, IPv6Address, ranges=True),
    "inet_proto": _Type(12, 1, _protocol, _protocol_name),
    "icmp_type": _Type(14, 1, _number(1, "big"), _big),
    "icmpv6_type": _Type(29, 1, _number(1, "big"), _big),
    "inet_service": _Type(13, 2, _number(2, "big"), _big, ranges=True),
    "mark": _Type(19, 4, _number(4, sys.byteorder), _host, ranges=True, host=True),
    "classid": _Type(23, 4, _number(4, sys.byteorder), _host, ranges=True, host=True),
    "ifname": _Type(41, 16, _ifname, lambda raw: raw.rstrip(b"\0").decode(errors="replace")),
}
_NAMES = {kind.number: name for name, kind in _TYPES.items()}
# A concatenation's number is those of its fields, six bits each.
_BITS = 6


def type_names(number: int) -> tuple[str, ...]:
    """The types of a listed set's key or data; one not known here is told by its number."""
    if number in _VERDICT_NUMBERS:
        return VERDICT
    numbers = []
    while number:
        numbers.append(number & (1 << _BITS) - 1)
        number >>= _BITS
    return tuple(_NAMES.get(n, f"type{n}") for n in reversed(numbers))


def set_type(name: str) -> tuple[int, int, bool]:
    """Of the values of sets that are not concatenated: the type's number, bytes, whether they are in the
    host's order. Raises NotPlain.
    """
    if name not in _TYPES or name == "ifname":  # names have an order of their own
        raise NotPlain
    kind = _TYPES[name]
    return kind.number, kind.size, kind.host


def encoder(types: Sequence[str]) -> Callable[[Key], bytes]:
    """Encodes one value, or the concatenation of several. Both raise NotPlain."""
    if any(kind not in _TYPES for kind in types):
        raise NotPlain
    encoders = [_TYPES[kind].encode for kind in types]

    def encode(fields: Key) -> bytes:
        if len(fields) != len(encoders):
            raise NotPlain
        return _joined([one(field) for one, field in zip(encoders, fields, strict=True)])

    return encode


def encode_bounds(types: Sequence[str], fields: Key) -> tuple[bytes, bytes]:
    """The first and the last value of an interval. Raises NotPlain."""
    if len(types) != len(fields):
        raise NotPlain
    pairs = [_bounds(kind, field) for kind, field in zip(types, fields, strict=True)]
    return _joined([first for first, _ in pairs]), _joined([last for _, last in pairs])


def _joined(values: Sequence[bytes]) -> bytes:
    if len(values) == 1:
        return values[0]
    return b"".join(value + bytes(-len(value) % 4) for value in values)


def _bounds(kind: str, field: Field) -> tuple[bytes, bytes]:
    if kind not in _TYPES:
        raise NotPlain
    host = _TYPES[kind].host
    one = _number(_TYPES[kind].size, "big") if host else _TYPES[kind].encode
    match field:
        case IPv4Network() if kind == "ipv4_addr":
            return field.network_address.packed, field.broadcast_address.packed
        case IPv6Network() if kind == "ipv6_addr":
            return field.network_address.packed, field.broadcast_address.packed
        case (low, high) if _TYPES[kind].ranges and low <= high:
            return one(low), one(high)
    value = one(field)
    return value, value


class Decoder:
    """Makes fields of bytes, for keys or data of one kind; what is of an unknown type comes out as hex."""

    def __init__(self, types: Sequence[str]) -> None:
        self._types = types
        self._kinds = [_TYPES.get(kind) for kind in types]
        only = self._kinds[0] if len(self._kinds) == 1 else None
        self._one = only.decode if only is not None else None

    def key(self, raw: bytes) -> Key:
        """The fields of one value."""
        if self._one is not None:
            return (self._one(raw),)
        return tuple(kind.decode(part) if kind is not None else part.hex() for kind, part in self._parts(raw))

    def interval(self, first: bytes, last: bytes) -> Key:
        """The fields of an interval: networks where it is one, else pairs or text; ports alone if one."""
        pairs = zip(self._types, self._parts(first), self._parts(last), strict=False)
        return tuple(_interval(name, kind, low, high) for name, (kind, low), (_, high) in pairs)

    def _parts(self, raw: bytes) -> list[tuple[_Type | None, bytes]]:
        if len(self._kinds) == 1:
            return [(self._kinds[0], raw)]
        parts, offset = [], 0
        for kind in self._kinds:
            size = kind.size if kind is not None else len(raw) - offset
            parts.append((kind, raw[offset : offset + size]))
            offset += size + -size % 4
        return parts


def _interval(name: str, kind: _Type | None, low: bytes, high: bytes) -> Field:
    if kind is None or not kind.ranges:
        value = low.hex() if kind is None else kind.decode(low)
        return value if low == high else f"{value}-{high.hex() if kind is None else kind.decode(high)}"
    first, last = _big(low), _big(high)
    if not name.endswith("_addr"):
        return first if first == last else (first, last)
    span = last - first + 1
    if span & span - 1 == 0 and first % span == 0:
        prefix = 8 * kind.size - (span.bit_length() - 1)
        return IPv4Network((first, prefix)) if kind.size == 4 else IPv6Network((first, prefix))
    return f"{kind.decode(low)}-{kind.decode(high)}"
