"""The echo server that probes talk to, and that a lab's pods are. It answers on every port, naming itself.

TCP: the first answer of a connection is preceded by a line ``NAME from CLIENT``, then everything comes back
as it was sent; a request that looks like HTTP gets an HTTP answer instead. UDP: every datagram is answered by
that line and the datagram. The line shows the client's address as the server sees it, which is what tells
masquerading. DNS: a small resolver on UDP, which answers every name with one address.
"""

import re
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from towpath.probe import dns
from towpath.probe.priority import be_on_time

_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d{1,9})")
_HIGH_WATER = 256 * 1024
_ANSWER4, _ANSWER6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")  # RFC 5737, RFC 3849


def serve(name: str, ports: Sequence[str]) -> None:
    """Serve ``PORT/PROTOCOL`` each (TCP, UDP, DNS) until SIGTERM. Raises ValueError, OSError (EADDRINUSE)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    be_on_time()  # what answers late looks like a slow network
    selector = selectors.DefaultSelector()
    for text in ports:
        number, _, protocol = text.partition("/")
        kind = {"TCP": Listener, "UDP": Datagrams, "DNS": Resolver}.get(protocol)
        if kind is None or not number.isdecimal() or not 0 < int(number) < 65536:
            raise ValueError(f"{text!r} is no PORT/PROTOCOL (TCP, UDP or DNS)")
        kind(selector, name, int(number))
    while True:
        for key, events in selector.select():
            key.data(events)


Client = tuple[str, int] | tuple[str, int, int, int]


def plain(address: Client) -> str:
    """``address:port`` of a client, IPv4-mapped ones as IPv4."""
    host = address[0].removeprefix("::ffff:").split("%")[0]
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def both_families(kind: socket.SocketKind, port: int, protocol: int = 0) -> socket.socket:
    """One socket for IPv4 and IPv6 (or IPv4 alone where the kernel has IPv6 off)."""
    try:
        sock = socket.socket(socket.AF_INET6, kind, protocol)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        host = "::"
    except OSError:
        sock, host = socket.socket(socket.AF_INET, kind, protocol), "0.0.0.0"  # noqa: S104 (inside a pod)
    if kind is socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind((host, port))
    return sock


class Datagrams:
    """A UDP port. Answers leave from the address that was asked: a host-network pod has several."""

    def __init__(self, selector: selectors.BaseSelector, identity: str, port: int) -> None:
        self._identity = identity
        self._socket = both_families(socket.SOCK_DGRAM, port)
        if self._socket.family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        selector.register(self._socket, selectors.EVENT_READ, self._ready)

    def _ready(self, _: int) -> None:
        """One datagram: where there is another, the selector says so again."""
        try:
            data, ancillary, _flags, client = self._socket.recvmsg(65536, 128)
        except OSError:
            return
        reply = self._answer(data, client)
        if not reply:
            return
        source = [
            # The address it came to, any interface: the way back may be another one.
            (level, kind, value[:16] + bytes(4))
            for level, kind, value in ancillary
            if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO)
        ]
        with suppress(OSError):
            self._socket.sendmsg([reply[:65507]], source, 0, client)

    def _answer(self, data: bytes, client: Client) -> bytes:
        return f"{self._identity} from {plain(client)}\n".encode() + data


class Resolver(Datagrams):
    """A UDP port that speaks DNS: whatever is asked for has the same address."""

    def _answer(self, data: bytes, client: Client) -> bytes:
        return dns.respond(data, _ANSWER4, _ANSWER6)


class Listener:
    """A TCP port (or, where the kernel has it, an SCTP port in one-to-one style)."""

    def __init__(self, selector: selectors.BaseSelector, identity: str, port: int, protocol: int = 0) -> None:
        self._selector, self._identity = selector, identity
        self._socket = both_families(socket.SOCK_STREAM, port, protocol)
        self._socket.listen(1024)
        selector.register(self._socket, selectors.EVENT_READ, self._ready)

    def _ready(self, _: int) -> None:
        for _attempt in range(64):
            try:
                connection, client = self._socket.accept()
            except OSError:
                return
            connection.setblocking(False)
            _Conversation(self._selector, connection, self._identity, plain(client))


class _Conversation:
    """One TCP connection: echo with back-pressure, or one HTTP answer after another."""

    def __init__(
        self, selector: selectors.BaseSelector, connection: socket.socket, identity: str, client: str
    ) -> None:
        self._selector, self._connection = selector, connection
        self._identity, self._client = identity, client
        self._first, self._ended = True, False
        self._http: bytes | None = None
        self._out = bytearray()
        self._handler: Callable[[int], None] = self._ready
        selector.register(connection, selectors.EVENT_READ, self._handler)

    def _ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = self._connection.recv(65536)
                self._ended = not data
                self._take(data)
            if self._out:
                sent = self._connection.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            self._ended = True
        if self._ended and not self._out:
            self._selector.unregister(self._connection)
            self._connection.close()
            return
        wanted = selectors.EVENT_WRITE if self._out else 0
        if not self._ended and len(self._out) < _HIGH_WATER:
            wanted |= selectors.EVENT_READ
        self._selector.modify(self._connection, wanted, self._handler)

    def _take(self, data: bytes) -> None:
        if self._first and data:
            self._first = False
            if data.startswith(_METHODS):
                self._http = b""
            else:
                self._out += f"{self._identity} from {self._client}\n".encode()
        if self._http is None:
            self._out += data
            return
        self._http += data
        while b"\r\n\r\n" in self._http:
            head, _, rest = self._http.partition(b"\r\n\r\n")
            body = _CONTENT_LENGTH.search(head)
            length = int(body[1]) if body else 0
            if len(rest) < length:
                return
            self._http = rest[length:]
            self._out += self._answer(head)

    def _answer(self, head: bytes) -> bytes:
        request = head.split(b"\r\n", 1)[0].decode("latin-1")
        body = f"{self._identity} from {self._client}\n{request}\n".encode()
        lines = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        return lines.encode() + (b"" if request.startswith("HEAD ") else body)
