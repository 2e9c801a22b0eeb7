"""A DHCP server of one address, on one interface: enough to get a lease (RFC 2131)."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

_COOKIE = bytes.fromhex("63825363")
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_MASK, _ROUTER, _LEASE, _KIND, _SERVER, _END = 1, 3, 51, 53, 54, 255


@contextlib.contextmanager
def dhcp_server(ifname: str, own: IPv4Interface, leased: IPv4Address) -> Iterator[list[int]]:
    """The kinds of messages it got. It has ``own`` on ``ifname`` already."""
    got: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode())
        sock.bind(("", 67))
        sock.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    request = sock.recv(2048)
                    kind = _option(request, _KIND)
                    got.append(kind)
                    if kind in (_DISCOVER, _REQUEST):
                        answer = _answer(request, _OFFER if kind == _DISCOVER else _ACK, own, leased)
                        sock.sendto(answer, ("255.255.255.255", 68))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield got
        finally:
            over.set()
            thread.join()


def _option(request: bytes, wanted: int) -> int:
    at = 240
    while at < len(request) and request[at] != _END:
        if request[at] == 0:
            at += 1
            continue
        if request[at] == wanted:
            return request[at + 2]
        at += 2 + request[at + 1]
    return 0


def _answer(request: bytes, kind: int, own: IPv4Interface, leased: IPv4Address) -> bytes:
    header = struct.pack("!BBBB", 2, request[1], request[2], 0) + request[4:12]
    addresses = bytes(4) + leased.packed + own.ip.packed + bytes(4)
    hardware = request[28:44] + bytes(192)
    options = {
        _KIND: bytes((kind,)),
        _SERVER: own.ip.packed,
        _LEASE: struct.pack("!I", 3600),
        _MASK: own.netmask.packed,
        _ROUTER: own.ip.packed,
    }
    body = b"".join(bytes((code, len(value))) + value for code, value in options.items())
    return header + addresses + hardware + _COOKIE + body + bytes((_END,))
