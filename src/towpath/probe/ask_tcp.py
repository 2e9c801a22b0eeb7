"""Askers over TCP: a new connection a question, or one connection for ever."""

import select
import socket
import time
from collections import deque
from collections.abc import Callable

from towpath.probe.ask import MAGIC, MESSAGE, Loop, tcp_socket
from towpath.probe.recording import Recording

_RECONNECT = 100_000_000  # nanoseconds between attempts of a broken echo
_CONNECT_WITHIN = 250_000_000  # a SYN that is lost must not make a gap longer than it is
_LINE = 512  # longer than any "NAME from CLIENT" line


class Connect:
    """A connection a question: answered when it is established, then reset.

    The moment is this process's, for the kernel stamps data and not handshakes; if the process was
    stalled between, the slot is invalid.
    """

    def __init__(self, loop: Loop, recording: Recording) -> None:
        self.recording = recording
        self._loop = loop
        self._waiting: deque[tuple[int, socket.socket]] = deque()

    def send(self, slot: int) -> None:
        """Connect."""
        try:
            sock = tcp_socket(self.recording)
        except OSError:
            self.recording.refuse(slot)
            return
        self._loop.register(sock.fileno(), select.EPOLLOUT, self._finisher(slot, sock))
        self._waiting.append((slot, sock))

    def _finisher(self, slot: int, sock: socket.socket) -> Callable[[int], None]:
        def finished(_: int) -> None:
            now = time.monotonic_ns()
            begun, ended = self._loop.stalled
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.recording.refuse(slot)
            elif ended > self.recording.intended(slot) and ended - begun > self.recording.probe.period:
                self.recording.invalidate(slot)
            else:
                self.recording.answer(slot, now)
            self._loop.forget(sock)

        return finished

    def sweep(self, now: int) -> None:
        """Give up on what is too old."""
        limit = now - self.recording.probe.timeout
        while self._waiting and (
            self._waiting[0][1].fileno() < 0 or self.recording.intended(self._waiting[0][0]) <= limit
        ):
            self._loop.forget(self._waiting.popleft()[1])
        self.recording.expire(now)

    def close(self) -> None:
        """Let go of all sockets."""
        self.sweep(time.monotonic_ns() + 2 * self.recording.probe.timeout)


class Echo:
    """One connection, a message a question. TCP repeats what is lost, so that loss shows as a stall.

    A connection that is reset, closed, or silent for the probe's time-out is broken: what it still owed is
    lost, and another one is begun.
    """

    def __init__(self, loop: Loop, recording: Recording) -> None:
        self.recording = recording
        self._loop = loop
        self._socket: socket.socket | None = None
        self._connected = self._headed = False
        self._begun = self._sent = 0
        self._buffer = b""
        self._connect(time.monotonic_ns())

    def _connect(self, now: int) -> None:
        self._begun, self._connected, self._headed, self._buffer = now, False, False, b""
        try:
            self._socket = tcp_socket(self.recording)
        except OSError:
            self._socket = None
            return
        self._socket.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        self._loop.register_stamped(self._socket.fileno(), select.EPOLLOUT, self._ready)

    def send(self, slot: int) -> None:
        """One message; without a connection the slot is lost."""
        if self._socket is None or not self._connected:
            self.recording.lose(slot)
            return
        message = MESSAGE.pack(MAGIC, slot, self.recording.probe.number)
        try:
            if self._socket.send(message) != len(message):
                self._broken()  # a send buffer filled with 16-byte messages: nothing moves for minutes
        except OSError:
            self._broken()

    def _ready(self, events: int) -> None:
        assert self._socket is not None  # noqa: S101 (handlers go with their socket)
        if not self._connected:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._broken()
                return
            self._connected = True
            self._loop.modify_stamped(self._socket.fileno(), select.EPOLLIN)
            return
        try:
            data, at = self._loop.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        if not data:
            self._broken()
            return
        self._take(self._buffer + data, at)

    def _take(self, data: bytes, at: int) -> None:
        if not self._headed:  # the echo server's first line says who it is
            line, newline, rest = data.partition(b"\n")
            if not newline and len(line) < _LINE:
                self._buffer = data
                return
            self._headed, data = True, rest
        whole = len(data) - len(data) % MESSAGE.size
        for magic, slot, _ in MESSAGE.iter_unpack(data[:whole]):
            if magic == MAGIC:
                self.recording.answer(slot, at)
        self._buffer = data[whole:]

    def _broken(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket)
        self._socket, self._connected = None, False
        while (slot := self.recording.oldest_pending()) is not None:
            self.recording.lose(slot)
            self.recording.expire(0)

    def sweep(self, now: int) -> None:
        """Break a connection that owes an answer for too long; begin another where there is none."""
        oldest = self.recording.oldest_pending()
        if oldest is not None and self.recording.intended(oldest) + self.recording.probe.timeout <= now:
            self._broken()
        self.recording.expire(now)
        if self._socket is not None and not self._connected and now - self._begun > _CONNECT_WITHIN:
            self._broken()
        if self._socket is None and now - self._begun > _RECONNECT:
            self._connect(now)

    def close(self) -> None:
        """Let go of the connection; what it owes is not its loss."""
        if self._socket is not None:
            self._loop.forget(self._socket)
            self._socket = None
