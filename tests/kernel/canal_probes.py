"""Traffic through a migration: what must go on is sent all the time, and so is what must never arrive.

UDP from a fixed socket and TCP connections of their own, every ten milliseconds, and one TCP connection that
is kept; servers in the namespaces, clients in threads. The figures are counts, for tests to judge. Lost is
what the network lost, however late a busy machine lets a thread see its answer: a datagram that is never
answered, and a handshake of which the kernel had to send something again.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from towpath.kernel.netns import run_in

_PERIOD, _PATIENCE = 0.01, 60.0
ENOUGH = 20  # questions of a kind on a path that is open, to judge it by
_TOTAL_RETRANS = struct.Struct("=100xI")  # tcpi_total_retrans in struct tcp_info (linux/tcp.h)


@dataclass
class Path:
    """From namespace ``source`` to ``address``:``port``; a server in ``sink`` listens on ``listen``."""

    name: str
    source: int
    sink: int
    address: str
    port: int
    listen: int = 0
    denied: bool = False


@dataclass
class Outcome:
    """``sent`` and ``answered`` requests by kind; ``seen``: client addresses that servers saw."""

    sent: dict[str, int] = field(default_factory=dict)
    answered: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)


class Probes:
    """Runs the paths' probes until it is closed."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.outcomes = {path.name: Outcome() for path in paths}
        self._stop, self._over = threading.Event(), threading.Event()
        self._clients: list[threading.Thread] = []
        self._servers: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def start(self) -> None:
        for path in self.paths:
            for kind in ("tcp", "udp"):
                self._serve(path, kind)
        for path in self.paths:
            for probe in (self._connections, self._datagrams, *([] if path.denied else [self._kept])):
                self._clients.append(_thread(lambda probe=probe, path=path: probe(path)))  # type: ignore[misc]

    def stop(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._enough() and time.monotonic() < deadline:
            time.sleep(_PERIOD)
        self._stop.set()
        for thread in self._clients:
            thread.join(2 * _PATIENCE)
        self._over.set()
        for thread in self._servers:
            thread.join(2 * _PATIENCE)
        for made in self._sockets:
            made.close()

    def _enough(self) -> bool:
        """A busy machine takes its time to send them."""
        paths = (self.outcomes[path.name] for path in self.paths if not path.denied)
        return all(len(one.sent) == 3 and min(one.sent.values()) > ENOUGH for one in paths)

    def lost(self, name: str) -> dict[str, int]:
        """Unanswered requests by kind."""
        outcome = self.outcomes[name]
        return {kind: outcome.sent[kind] - outcome.answered.get(kind, 0) for kind in outcome.sent}

    # Servers.

    def _serve(self, path: Path, kind: str) -> None:
        family = socket.AF_INET6 if ":" in path.address else socket.AF_INET
        type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        server = run_in(path.sink, lambda: socket.socket(family, type_))
        self._sockets.append(server)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind = path.address if kind == "udp" and not path.listen else ""
        server.bind((bind, path.listen or path.port))
        server.settimeout(0.2)
        if kind == "tcp":
            server.listen(512)
            self._servers.append(_thread(lambda: self._accept(server, self.outcomes[path.name])))
        else:
            self._servers.append(_thread(lambda: self._echo(server, self.outcomes[path.name])))

    def _accept(self, server: socket.socket, outcome: Outcome) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, peer = server.accept()
                outcome.seen.add(peer[0])
                _thread(lambda connection=connection: _talk(connection))  # type: ignore[misc]

    def _echo(self, server: socket.socket, outcome: Outcome) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                data, peer = server.recvfrom(64)
                outcome.seen.add(peer[0])
                server.sendto(data, peer)

    # Clients.

    def _connections(self, path: Path) -> None:
        for _ in self._ticks():
            with self._client(path, socket.SOCK_STREAM) as client:
                self._try("connect", path, lambda client=client: self._connect(client, path))  # type: ignore[misc]

    def _connect(self, client: socket.socket, path: Path) -> bool:
        client.connect((path.address, path.port))
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANS.size)
        if _TOTAL_RETRANS.unpack(info)[0]:
            raise ConnectionError(f"port {client.getsockname()[1]}: the handshake needed a second try")
        client.sendall(b"ping")
        return client.recv(4) == b"ping"

    def _datagrams(self, path: Path) -> None:
        with self._client(path, socket.SOCK_DGRAM) as client:
            client.connect((path.address, path.port))
            for number in self._ticks():
                text = f"{number:08}".encode()
                self._try("datagram", path, lambda text=text: self._ask(client, text))  # type: ignore[misc]

    def _ask(self, client: socket.socket, text: bytes) -> bool:
        client.send(text)
        while (answer := client.recv(64)) != text:
            assert answer  # a late one of a former question
        return True

    def _kept(self, path: Path) -> None:
        with self._client(path, socket.SOCK_STREAM) as client:
            client.settimeout(_PATIENCE)
            client.connect((path.address, path.port))
            for number in self._ticks():
                text = f"{number:08}".encode()
                self._try("kept", path, lambda text=text: self._exchange(client, text))  # type: ignore[misc]

    def _exchange(self, client: socket.socket, text: bytes) -> bool:
        client.sendall(text)
        data = b""
        while len(data) < len(text):
            more = client.recv(64)
            if not more:
                return False
            data += more
        return data == text

    def _try(self, kind: str, path: Path, what: Callable[[], bool]) -> None:
        outcome, begun = self.outcomes[path.name], time.monotonic()
        outcome.sent[kind] = outcome.sent.get(kind, 0) + 1
        try:
            answered = what()
        except OSError as error:
            if not path.denied:
                outcome.errors.append(f"{kind} at {begun:.2f}: {error!r}")
            return
        if answered:
            outcome.answered[kind] = outcome.answered.get(kind, 0) + 1
            outcome.longest = max(outcome.longest, time.monotonic() - begun)

    def _ticks(self) -> Iterator[int]:
        number = 0
        while not self._stop.wait(_PERIOD):
            yield number
            number += 1

    def _client(self, path: Path, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in path.address else socket.AF_INET
        made = run_in(path.source, lambda: socket.socket(family, kind))
        made.settimeout(0.1 if path.denied else _PATIENCE)
        return made


def _talk(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_PATIENCE)
        while data := connection.recv(64):
            connection.sendall(data)


def _thread(what: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def probes(*paths: Path) -> Iterator[Probes]:
    running = Probes(*paths)
    running.start()
    try:
        yield running
    finally:
        running.stop()
