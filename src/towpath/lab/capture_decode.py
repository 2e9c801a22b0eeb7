"""Frames into what a line shows and a filter asks: addresses, ports, VXLAN with what is inside."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import msgspec

VXLAN_PORTS = {8472, 4789}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}
_EXTENSION_HEADERS = {0, 43, 60}
_FLAGS = ((0x02, "S"), (0x10, "."), (0x01, "F"), (0x04, "R"), (0x08, "P"))
_ICMP = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_ICMP6 = {
    1: "unreachable",
    2: "packet too big",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "multicast listener report",
}


class Packet(msgspec.Struct, kw_only=True):
    """A frame as far as it was understood. ``inner`` is what VXLAN carried."""

    protocol: str = "ethernet"
    source: IPv4Address | IPv6Address | None = None
    destination: IPv4Address | IPv6Address | None = None
    sport: int = 0
    dport: int = 0
    detail: str = ""
    length: int = 0
    vni: int = -1
    inner: "Packet | None" = None

    def summary(self) -> str:
        """One line, tcpdump's spirit."""
        if self.source is None:
            return f"{self.protocol} {self.detail}, length {self.length}".replace(" ,", ",")
        family = "IP" if self.source.version == 4 else "IP6"
        here = f"{self.source}.{self.sport}" if self.sport or self.dport else f"{self.source}"
        there = f"{self.destination}.{self.dport}" if self.sport or self.dport else f"{self.destination}"
        text = f"{family} {here} > {there}: {self.protocol}"
        if self.inner is not None:
            return f"{text} VXLAN vni {self.vni} | {self.inner.summary()}"
        return f"{text}{' ' + self.detail if self.detail else ''}, length {self.length}"


def decode(frame: bytes) -> Packet:
    """An Ethernet frame. Whatever is cut short or unknown stays at the layer that was understood."""
    try:
        return _ethernet(frame)
    except (struct.error, IndexError, ValueError):
        return Packet(detail="cut short", length=len(frame))


def _ethernet(frame: bytes) -> Packet:
    (kind,) = struct.unpack_from("!H", frame, 12)
    body = frame[14:]
    if kind == 0x0800:
        return _ipv4(body)
    if kind == 0x86DD:
        return _ipv6(body)
    if kind == 0x0806:
        return _arp(body)
    return Packet(detail=f"type 0x{kind:04x}", length=len(frame))


def _arp(body: bytes) -> Packet:
    (operation,) = struct.unpack_from("!H", body, 6)
    asker, asked = IPv4Address(body[14:18]), IPv4Address(body[24:28])
    words = f"who has {asked} tell {asker}" if operation == 1 else f"{asker} is at {body[8:14].hex(':')}"
    return Packet(protocol="arp", detail=words, length=len(body))


def _ipv4(body: bytes) -> Packet:
    header = (body[0] & 0x0F) * 4
    packet = Packet(source=IPv4Address(body[12:16]), destination=IPv4Address(body[16:20]), length=len(body))
    (fragment,) = struct.unpack_from("!H", body, 6)
    if fragment & 0x1FFF:
        packet.protocol = "fragment"
        return packet
    return _transport(packet, body[9], body[header:])


def _ipv6(body: bytes) -> Packet:
    packet = Packet(source=IPv6Address(body[8:24]), destination=IPv6Address(body[24:40]), length=len(body))
    kind, rest = body[6], body[40:]
    while kind in _EXTENSION_HEADERS:
        kind, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    return _transport(packet, kind, rest)


def _transport(packet: Packet, kind: int, body: bytes) -> Packet:
    packet.protocol = _PROTOCOLS.get(kind, f"proto-{kind}")
    if kind in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, 132):
        packet.sport, packet.dport = struct.unpack_from("!HH", body)
    if kind == socket.IPPROTO_TCP:
        flags = "".join(letter for bit, letter in _FLAGS if body[13] & bit)
        packet.detail = f"[{flags}]"
    elif kind == socket.IPPROTO_UDP and packet.dport in VXLAN_PORTS and len(body) >= 30:
        packet.vni = int.from_bytes(body[12:15], "big")
        packet.inner = decode(body[16:])
    elif kind in (1, 58):
        names = _ICMP if kind == 1 else _ICMP6
        packet.detail = names.get(body[0], f"type {body[0]}")
    return packet
