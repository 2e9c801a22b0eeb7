"""What all askers share: their part of the loop, receive stamps, sockets.

An asker is one probe at work: it sends when told, reads when its sockets are readable, and writes down in its
``Recording``.
"""

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol

from towpath.probe.clock import realtime_offset
from towpath.probe.recording import Recording

SO_TIMESTAMPNS = SCM_TIMESTAMPNS = 35
_STAMP = struct.Struct("=qq")
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)
LONGEST = 9216  # bytes of a question; longer frames than that no network card has
_BUFFER = LONGEST + 1024  # the answer is its question and a line
# linux/in.h and linux/in6.h, by family: the options' level, how MTUs are found, the MTU found; its headers.
_MTU = {4: (socket.IPPROTO_IP, 10, 14, 28), 6: (socket.IPPROTO_IPV6, 23, 24, 48)}
_PMTUDISC_DO = 2
_STALL = 2_000_000  # nanoseconds: wake-ups as late as this are remembered
_NO_LINGER = struct.pack("ii", 1, 0)

MESSAGE = struct.Struct("!4sIQ")  # magic, slot, the probe's number
MAGIC = b"twp1"


class Loop:
    """Who reads what, and what time it is.

    ``stalled`` is the last stretch of time in which the process should have run and did not. Sockets whose
    data the kernel stamps wake nobody: they are read whenever something else does, which halves the wake-ups.
    """

    def __init__(self) -> None:
        self._epoll, self._stamped = select.epoll(), select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self.offset = realtime_offset()
        self.stalled = (0, 0)

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` whenever ``fd`` has one of ``events``."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def register_stamped(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """The same for a socket that is in no hurry: its data says when it came."""
        self._handlers[fd] = handler
        self._stamped.register(fd, events)

    def modify_stamped(self, fd: int, events: int) -> None:
        """Other events from now on."""
        self._stamped.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """No longer look at ``fd``."""
        self._handlers.pop(fd, None)
        self._epoll.unregister(fd)

    def forget(self, sock: socket.socket) -> None:
        """Close a socket and what is known of it."""
        fd = sock.fileno()
        if fd >= 0:
            self._handlers.pop(fd, None)
            sock.close()  # epoll forgets a closed file by itself

    def wait(self, due: int) -> int:
        """One turn: wait, then serve what is ready. The moment (monotonic) at which the wait ended.

        Waking up later than ``due`` (the timer's) by more than a little is a stall, known before anything is
        served: what was answered meanwhile by a moment of this process's own cannot be told.
        """
        hurried = self._epoll.poll(maxevents=512)
        now = time.monotonic_ns()
        self.offset = realtime_offset()
        if stalled := now - due > _STALL:
            self.stalled = (due, now)
        self._serve(hurried)
        self._serve(self._stamped.poll(0, 512))
        if stalled:
            self.drain()
        return now

    def drain(self) -> None:
        """Serve what is ready at this moment, without waiting, until nothing is."""
        while self._serve(self._epoll.poll(0, 512)) + self._serve(self._stamped.poll(0, 512)):
            pass

    def _serve(self, ready: list[tuple[int, int]]) -> int:
        served = 0
        for fd, what in ready:
            if (handler := self._handlers.get(fd)) is not None:
                handler(what)
                served += 1
        return served

    def receive(self, sock: socket.socket) -> tuple[bytes, int]:
        """Data, and when the kernel got it (monotonic nanoseconds): not when this process came to read it.

        Raises OSError (BlockingIOError when there is nothing).
        """
        data, ancillary, _, _ = sock.recvmsg(_BUFFER, _ANCILLARY)
        now = time.monotonic_ns()
        if ancillary and ancillary[0][1] == SCM_TIMESTAMPNS:
            seconds, rest = _STAMP.unpack(ancillary[0][2])
            stamp = seconds * 1_000_000_000 + rest - self.offset
            # A stamp from the future, or older than any time-out: the wall clock was set in between.
            if now - 6_000_000_000 < stamp <= now:
                return data, stamp
        return data, now


class Asker(Protocol):
    """One probe at work."""

    recording: Recording

    def send(self, slot: int) -> None:
        """Ask for one slot."""

    def sweep(self, now: int) -> None:
        """Every now and then: give up on what is too old."""

    def close(self) -> None:
        """Let go of all sockets."""


def udp_socket(recording: Recording) -> socket.socket:
    """A connected, non-blocking UDP socket with receive stamps. Raises OSError."""
    probe = recording.probe
    sock = socket.socket(socket.AF_INET if probe.family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.connect((probe.address, probe.port))
    except OSError:
        sock.close()
        raise
    return sock


def longest(sock: socket.socket, family: Literal[4, 6]) -> int:
    """Bytes of a datagram that makes a packet as long as the path's MTU; no longer one is fragmented from
    now on. Raises OSError.
    """
    level, discover, mtu, headers = _MTU[family]
    sock.setsockopt(level, discover, _PMTUDISC_DO)
    return min(sock.getsockopt(level, mtu) - headers, LONGEST)


def tcp_socket(recording: Recording) -> socket.socket:
    """A non-blocking TCP socket whose connection is under way. Raises OSError.

    Closing it resets, which spares both ends a TIME_WAIT a probe: 50 a second would fill the port range. Not
    so for denied probes: conntrack lets a SYN that meets an entry closed by its own side's RST pass as
    established (nf_conntrack_proto_tcp.c, TCP_CONNTRACK_IGNORE), and after a FIN it begins anew.
    """
    probe = recording.probe
    sock = socket.socket(socket.AF_INET if probe.family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if not probe.kind.denied:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            sock.connect((probe.address, probe.port))
    except OSError:
        sock.close()
        raise
    return sock
