"""Askers over UDP: one socket for ever, or one a question."""

import select
import socket
import time
from collections import deque
from collections.abc import Callable

from towpath.probe import dns
from towpath.probe.ask import MAGIC, MESSAGE, Loop, longest, udp_socket
from towpath.probe.plan import Kind
from towpath.probe.recording import Recording


class FixedUdp:
    """One socket, one 5-tuple; slots are told apart by their number in the datagram."""

    def __init__(self, loop: Loop, recording: Recording) -> None:
        """Raises OSError when there is no way to the address at all."""
        self.recording = recording
        self._loop, self._number = loop, recording.probe.number
        self._socket = udp_socket(recording)
        loop.register_stamped(self._socket.fileno(), select.EPOLLIN, self._readable)

    def send(self, slot: int) -> None:
        """Ask. An error that an earlier datagram met is that one's; then this one is tried again."""
        message = MESSAGE.pack(MAGIC, slot, self._number)
        try:
            self._socket.send(message)
            return
        except ConnectionRefusedError:
            self._refuse_oldest(slot)
        except OSError:
            self.recording.refuse(slot)
            return
        try:
            self._socket.send(message)
        except OSError:
            self.recording.refuse(slot)

    def _readable(self, _: int) -> None:
        """One datagram: where there is another, epoll says so again. To try costs as much as to read."""
        try:
            data, at = self._loop.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            self._refuse_oldest(-1)
            return
        if len(data) >= MESSAGE.size:
            magic, slot, number = MESSAGE.unpack_from(data, len(data) - MESSAGE.size)
            if magic == MAGIC and number == self._number:
                self.recording.answer(slot, at)

    def _refuse_oldest(self, but: int) -> None:
        oldest = self.recording.oldest_pending()
        if oldest is not None and oldest != but:
            self.recording.refuse(oldest)

    def sweep(self, now: int) -> None:
        """Time-outs are the recording's."""
        self.recording.expire(now)

    def close(self) -> None:
        """Let go of the socket."""
        self._loop.forget(self._socket)


class FreshUdp:
    """A socket, and so a source port and a conntrack entry, of its own for each question."""

    def __init__(self, loop: Loop, recording: Recording) -> None:
        self.recording = recording
        self._loop = loop
        self._waiting: deque[tuple[int, socket.socket]] = deque()

    def send(self, slot: int) -> None:
        """Ask, with a new socket."""
        try:
            sock = udp_socket(self.recording)
        except OSError:
            self.recording.refuse(slot)
            return
        try:
            message = self._message(slot)
            if self.recording.probe.fills_mtu:
                message = message.rjust(longest(sock, self.recording.probe.family), b"\0")
            sock.send(message)
        except OSError:
            sock.close()
            self.recording.refuse(slot)
            return
        self._loop.register_stamped(sock.fileno(), select.EPOLLIN, self._reader(slot, sock))
        self._waiting.append((slot, sock))

    def _message(self, slot: int) -> bytes:
        probe = self.recording.probe
        if probe.kind is Kind.DNS:
            return dns.query(slot, probe.name, probe.family)
        return MESSAGE.pack(MAGIC, slot, probe.number)

    def _reader(self, slot: int, sock: socket.socket) -> Callable[[int], None]:
        def readable(_: int) -> None:
            try:
                data, at = self._loop.receive(sock)
            except BlockingIOError:
                return
            except OSError:
                self.recording.refuse(slot)
            else:
                if not self._is_answer(slot, data):
                    return
                self.recording.answer(slot, at)
            self._loop.forget(sock)

        return readable

    def _is_answer(self, slot: int, data: bytes) -> bool:
        if self.recording.probe.kind is Kind.DNS:
            return dns.answers(data, slot)
        return data.endswith(MESSAGE.pack(MAGIC, slot, self.recording.probe.number))

    def sweep(self, now: int) -> None:
        """Close what was answered or is too old."""
        limit = now - self.recording.probe.timeout
        while self._waiting and (
            self._waiting[0][1].fileno() < 0 or self.recording.intended(self._waiting[0][0]) <= limit
        ):
            self._loop.forget(self._waiting.popleft()[1])
        self.recording.expire(now)

    def close(self) -> None:
        """Let go of all sockets."""
        self.sweep(time.monotonic_ns() + 2 * self.recording.probe.timeout)
