"""First packets of flows as bytes, each with a number in it by which it is known where it arrives.

Checksums are right: connection tracking looks at them.
"""

import re
import struct

from towpath.lab import workload_sctp
from towpath.policy.evaluate import Flow
from towpath.policy.ir import ICMP, ICMPV6, SCTP, TCP, UDP

_MARK = b"tp#"
_FOUND = re.compile(re.escape(_MARK) + rb"(.{4})", re.DOTALL)


def packet(flow: Flow, number: int, about: bytes = b"") -> bytes:
    """From the IP header on. ``about``: the packet that an ICMP error tells of."""
    source, destination = flow.source.packed, flow.destination.packed
    body = _transport(flow, about + _MARK + struct.pack("!I", number), number, source + destination)
    if flow.family == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, flow.protocol, 0)
        total = checksum(head + source + destination)
        return head[:10] + struct.pack("!H", total) + source + destination + body
    head = struct.pack("!IHBB", 6 << 28, len(body), flow.protocol, 64)
    return head + source + destination + body


def number_of(data: bytes) -> int | None:
    """Of whatever holds a packet, whole or in part."""
    found = _FOUND.search(data)
    return int.from_bytes(found[1], "big") if found else None


def _transport(flow: Flow, payload: bytes, number: int, addresses: bytes) -> bytes:
    ports = struct.pack("!HH", flow.source_port, flow.destination_port)
    pseudo = addresses + struct.pack("!II", 0, flow.protocol)
    if flow.protocol == TCP:
        head = ports + struct.pack("!IIBBHHH", number, 0, 5 << 4, 2, 1024, 0, 0)
        return _summed(head + payload, 16, pseudo)
    if flow.protocol == UDP:
        return _summed(ports + struct.pack("!HH", 8 + len(payload), 0) + payload, 6, pseudo)
    if flow.protocol == SCTP:
        value = struct.pack("!IIHHI", number | 1 << 31, 65536, 1, 1, 1) + b"\x80\0\0\x0c" + payload + b"\0"
        return workload_sctp.encode(
            workload_sctp.Packet(flow.source_port, flow.destination_port, 0, workload_sctp.INIT, value)
        )
    if flow.protocol in (ICMP, ICMPV6):
        head = struct.pack("!BBHHH", flow.icmp_type, flow.icmp_code, 0, number & 0xFFFF, number >> 16)
        return _summed(head + payload, 2, pseudo if flow.protocol == ICMPV6 else b"")
    return b"\0" * 4 + payload


def _summed(data: bytes, place: int, pseudo: bytes) -> bytes:
    """With its checksum at ``place``. The length in the pseudo-header may stand anywhere."""
    length = struct.pack("!I", len(data)) if pseudo else b""
    total = checksum(pseudo + length + data) or 0xFFFF
    return data[:place] + struct.pack("!H", total) + data[place + 2 :]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
