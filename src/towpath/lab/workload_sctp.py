"""SCTP ports of the echo workload, also on kernels without SCTP sockets.

Where the kernel has SCTP, ``workload`` listens as for TCP. Elsewhere a raw socket answers INIT chunks
(RFC 9260 §5.1): INIT ACK on a served port, with the pod's name as the state cookie, ABORT on others; COOKIE
ECHO is acknowledged. That is enough to see whether SCTP reaches a pod, through policy and port mappings.
"""

import random
import selectors
import socket
import struct
from contextlib import suppress
from functools import lru_cache

import msgspec

IPPROTO_SCTP = 132
INIT, INIT_ACK, ABORT, COOKIE_ECHO, COOKIE_ACK = 1, 2, 6, 10, 11
_STATE_COOKIE = 7
_WINDOW = 65536


class Packet(msgspec.Struct, frozen=True):
    """An SCTP packet with one chunk: ports, verification tag, chunk type and value."""

    source: int
    destination: int
    tag: int
    chunk: int
    value: bytes


@lru_cache(maxsize=1)
def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum of RFC 9260 appendix A."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def encode(packet: Packet) -> bytes:
    """The packet on the wire, checksum included."""
    chunk = struct.pack("!BBH", packet.chunk, 0, 4 + len(packet.value)) + packet.value
    chunk += b"\0" * (-len(chunk) % 4)
    head = struct.pack("!HHI", packet.source, packet.destination, packet.tag)
    # The checksum is the one field in little-endian order, as the CRC's bit order has it.
    return head + struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk)) + chunk


def decode(data: bytes) -> Packet | None:
    """The first chunk of a packet; None when it is cut short or its checksum is wrong."""
    if len(data) < 16:
        return None
    source, destination, tag = struct.unpack_from("!HHI", data)
    kind, _, length = struct.unpack_from("!BBH", data, 12)
    (checksum,) = struct.unpack_from("<I", data, 8)
    if length < 4 or 12 + length > len(data):
        return None
    if checksum != crc32c(data[:8] + b"\0\0\0\0" + data[12:]):
        return None
    return Packet(source, destination, tag, kind, data[16 : 12 + length])


def init(source: int, destination: int, initiate_tag: int) -> bytes:
    """An INIT, as a prober sends it."""
    value = struct.pack("!IIHHI", initiate_tag, _WINDOW, 1, 1, initiate_tag)
    return encode(Packet(source, destination, 0, INIT, value))


def respond(packet: Packet, ports: frozenset[int], identity: str) -> bytes | None:
    """What the workload answers to a packet, if anything."""
    if packet.destination not in ports:
        if packet.chunk != INIT or len(packet.value) < 16:
            return None
        (peer_tag,) = struct.unpack_from("!I", packet.value)
        return encode(Packet(packet.destination, packet.source, peer_tag, ABORT, b""))
    if packet.chunk == INIT and len(packet.value) >= 16:
        (peer_tag,) = struct.unpack_from("!I", packet.value)
        tag = random.randrange(1, 1 << 32)  # noqa: S311 (not a secret: nothing is delivered here)
        cookie = identity.encode()
        value = struct.pack("!IIHHI", tag, _WINDOW, 1, 1, tag)
        value += struct.pack("!HH", _STATE_COOKIE, 4 + len(cookie)) + cookie
        return encode(Packet(packet.destination, packet.source, peer_tag, INIT_ACK, value))
    if packet.chunk == COOKIE_ECHO:
        return encode(Packet(packet.destination, packet.source, packet.tag, COOKIE_ACK, b""))
    return None


def identity_of(packet: Packet) -> str:
    """The name in an INIT ACK's state cookie, "" when it carries none (a kernel's cookie is opaque)."""
    rest = packet.value[16:]
    if packet.chunk != INIT_ACK or len(rest) < 4:
        return ""
    kind, length = struct.unpack_from("!HH", rest)
    name = rest[4:length].decode("ascii", errors="replace")
    return name if kind == _STATE_COOKIE and name.isprintable() and name.isascii() else ""


def serve_sctp(selector: selectors.BaseSelector, identity: str, ports: list[int]) -> None:
    """Register the SCTP ports with the workload's loop."""
    served = frozenset(ports)
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            _Responder(selector, family, identity, served)


class _Responder:
    """One family's raw socket."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        family: socket.AddressFamily,
        identity: str,
        ports: frozenset[int],
    ) -> None:
        self._family, self._identity, self._ports = family, identity, ports
        self._socket = socket.socket(family, socket.SOCK_RAW, IPPROTO_SCTP)
        self._socket.setblocking(False)
        selector.register(self._socket, selectors.EVENT_READ, self._ready)

    def _ready(self, _: int) -> None:
        with suppress(OSError):
            data, client = self._socket.recvfrom(65536)
            if self._family == socket.AF_INET:  # raw IPv4 sockets deliver the IP header too
                data = data[(data[0] & 0x0F) * 4 :]
            packet = decode(data)
            answer = respond(packet, self._ports, self._identity) if packet else None
            if answer:
                self._socket.sendto(answer, (client[0], 0, *client[2:]))
