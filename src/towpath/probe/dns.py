"""The little of DNS (RFC 1035) that a probe and the lab's resolver need: one question, its answer. Pure."""

import struct
from ipaddress import IPv4Address, IPv6Address

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_A, _AAAA, _IN = 1, 28, 1
_TTL = 5


def query(number: int, name: str, family: int = 4) -> bytes:
    """An A (or, for family 6, AAAA) question with the lowest 16 bits of ``number`` as its ID."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split(".") if label)
    kind = _A if family == 4 else _AAAA
    header = _HEADER.pack(number & 0xFFFF, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!HH", kind, _IN)


def answers(message: bytes, number: int) -> bool:
    """Whether ``message`` is a response to the question with that ID. NXDOMAIN is: the server was reached.

    SERVFAIL is as well, for the same reason; what a resolver knows is not what is measured.
    """
    if len(message) < _HEADER.size:
        return False
    ident, flags = _HEADER.unpack_from(message)[:2]
    return bool(ident == number & 0xFFFF and flags & _RESPONSE)


def respond(message: bytes, addr4: IPv4Address, addr6: IPv6Address) -> bytes:
    """An answer to whatever A or AAAA question was asked; no records for other types. b"" to what is none."""
    if len(message) < _HEADER.size:
        return b""
    ident, flags, questions = _HEADER.unpack_from(message)[:3]
    end = message.find(b"\0", _HEADER.size) + 5
    if flags & _RESPONSE or questions != 1 or end < _HEADER.size + 5 or end > len(message):
        return b""
    kind = struct.unpack_from("!H", message, end - 4)[0]
    address = {_A: addr4.packed, _AAAA: addr6.packed}.get(kind)
    reply = _RESPONSE | flags & _RECURSION_DESIRED | _RECURSION_AVAILABLE
    head = _HEADER.pack(ident, reply, 1, 1 if address else 0, 0, 0) + message[_HEADER.size : end]
    if address is None:
        return head
    return head + struct.pack("!HHHIH", 0xC000 | _HEADER.size, kind, _IN, _TTL, len(address)) + address
