"""Packet capture without tcpdump: AF_PACKET in, pcap or one line a packet out."""

import os
import select
import socket
import struct
import time

from towpath.lab.capture_decode import decode
from towpath.lab.capture_filter import Filter, parse_filter

__all__ = ["open_device", "parse_filter", "pcap_header", "run"]

_ETH_P_ALL = 0x0003
_SNAPLEN, _LINKTYPE_ETHERNET = 65535, 1


def open_device(device: str) -> socket.socket:
    """A socket that sees every frame of ``device`` ("any": of all). Raises OSError."""
    source = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if device != "any":
        source.bind((device, _ETH_P_ALL))
    source.setblocking(False)
    return source


def pcap_header() -> bytes:
    """The file header: microseconds, Ethernet."""
    return struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_ETHERNET)


def run(
    source: socket.socket, out: int, wanted: Filter, *, stop: socket.socket, text: bool, count: int
) -> int:
    """Capture until ``stop`` turns readable or ``count`` packets (0: no limit) are written; how many."""
    if not text:
        os.write(out, pcap_header())
    seen = 0
    while True:
        readable, _, _ = select.select([source, stop], [], [])
        if source in readable:
            for frame in _frames(source):
                packet = decode(frame)
                if not wanted(packet):
                    continue
                now = time.time()
                os.write(out, _line(now, packet.summary()) if text else _record(now, frame))
                seen += 1
                if seen == count:
                    return seen
        if stop in readable:
            return seen


def _frames(source: socket.socket) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < 256:
        try:
            frames.append(source.recv(_SNAPLEN + 1))
        except BlockingIOError:
            break
    return frames


def _record(now: float, frame: bytes) -> bytes:
    seconds, micros = int(now), int(now % 1 * 1e6)
    return struct.pack("=IIII", seconds, micros, len(frame), len(frame)) + frame


def _line(now: float, summary: str) -> bytes:
    stamp = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1e6):06d}"
    return f"{stamp} {summary}\n".encode()
