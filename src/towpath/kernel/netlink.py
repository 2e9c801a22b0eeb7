"""A netlink socket: many requests in one send, answers matched by sequence, dumps that are whole.

The kernel works a request off inside ``send``, in order, and goes on after one that failed; it answers what
failed always, and what succeeded only if asked. So a batch asks for an answer to its last message alone.
"""

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from towpath.kernel.hints import listing_hint
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import attributes, string

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x100, 0x200, 0x400, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _EXT_ACK, _CAP_ACK, _STRICT_CHECK = 270, 11, 10, 12
_NLMSGERR_ATTR_MSG = 1

_HEADER = Struct("=IHHII")
_ERROR = Struct("=i")
_BUFFER = 1 << 17
# What the kernel may queue for us while we send: an answer takes up to 4 kB of a 208 kB receive buffer.
_GETS, _BATCH = 32, 200
_DUMP_ATTEMPTS = 30


class Message(NamedTuple):
    """A request. ``forgive``: errors that mean the wanted state is there already."""

    kind: int
    flags: int
    body: bytes
    forgive: frozenset[int] = frozenset()


class Failure(NamedTuple):
    """What the kernel said to message ``place`` of a batch; ``text``: its extended acknowledgement."""

    place: int
    errno: int
    text: str

    def reason(self) -> str:
        """The kernel's words, as far as it has any, and the error's name."""
        name = os.strerror(self.errno)
        return f"{self.text.rstrip('.')} ({name})" if self.text else name


class NetlinkSocket:
    """Requests over one socket, which keeps to the network namespace it was opened in, whoever uses it.

    Not to be shared between threads.
    """

    def __init__(self, sock: socket.socket) -> None:
        """``sock`` is an open netlink socket; it is closed by ``close``. Raises OSError."""
        self._sock = sock
        self._seq = 0
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for option in (_EXT_ACK, _CAP_ACK, _STRICT_CHECK):
            sock.setsockopt(_SOL_NETLINK, option, 1)

    @classmethod
    def open(cls, protocol: int = socket.NETLINK_ROUTE) -> "NetlinkSocket":
        """A new socket in the calling thread's network namespace. Raises OSError."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol))

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for ioctl."""
        return self._sock

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def request(self, messages: Sequence[Message]) -> list[Failure]:
        """Execute all of ``messages`` in order and tell which failed; a failure stops none after it."""
        failures: list[Failure] = []
        for start in range(0, len(messages), _BATCH):
            part = messages[start : start + _BATCH]
            first, last = self._send(part, NLM_F_ACK)
            for seq, kind, payload in self._answers(first, last):
                if kind == _NLMSG_ERROR:
                    failure = _failure(seq - first, payload)
                    if failure.errno and failure.errno not in part[failure.place].forgive:
                        failures.append(failure._replace(place=start + failure.place))
        return failures

    def get(self, messages: Sequence[Message]) -> list[bytes | None]:
        """One object for each of ``messages``; None where the kernel answered with an error."""
        found: list[bytes | None] = [None] * len(messages)
        for start in range(0, len(messages), _GETS):
            first, last = self._send(messages[start : start + _GETS], NLM_F_ACK)
            for seq, kind, payload in self._answers(first, last):
                if kind != _NLMSG_ERROR:
                    found[start + seq - first] = bytes(payload)
        return found

    def dump(self, kind: int, body: bytes, keep: Callable[[memoryview], bool] | None = None) -> list[bytes]:
        """All objects of a kind, or those to ``keep``; taken again if interrupted (NLM_F_DUMP_INTR).

        Raises KernelRefused.
        """
        for _ in range(_DUMP_ATTEMPTS):
            try:
                whole, found = self._dump_once(kind, body, keep)
            except OSError as error:
                raise _not_listed(kind, error.errno or 0) from error
            if whole:
                return found
        raise KernelRefused(
            f"list netlink objects (type {kind})",
            0,
            f"interrupted by changes {_DUMP_ATTEMPTS} times",
            "something changes this namespace without pause",
        )

    def _dump_once(
        self, kind: int, body: bytes, keep: Callable[[memoryview], bool] | None
    ) -> tuple[bool, list[bytes]]:
        self._seq += 1
        header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._seq, 0)
        self._sock.send(header + body)
        found: list[bytes] = []
        whole = True
        while True:
            data = self._receive()
            offset, end = 0, len(data)
            while offset < end:
                size, reply, flags, seq, _ = _HEADER.unpack_from(data, offset)
                payload = data[offset + 16 : offset + size]
                offset += (size + 3) & ~3
                if seq != self._seq:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if reply in (_NLMSG_DONE, _NLMSG_ERROR):
                    _raise_for(kind, payload)
                    return whole, found
                if keep is None or keep(payload):
                    found.append(bytes(payload))

    def _send(self, messages: Sequence[Message], last_flags: int) -> tuple[int, int]:
        """Send as one datagram; returns the sequence numbers of the first and the last message."""
        first = seq = self._seq + 1
        parts: list[bytes] = []
        for message in messages:
            body = message.body
            parts.append(_HEADER.pack(16 + len(body), message.kind, message.flags | NLM_F_REQUEST, seq, 0))
            parts.append(body)
            seq += 1
        self._seq = last = seq - 1
        if last_flags:
            kind, flags, body = messages[-1][:3]
            header = _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST | last_flags, last, 0)
            parts[-2] = header
        self._sock.send(b"".join(parts))
        return first, last

    def _answers(self, first: int, last: int) -> Iterable[tuple[int, int, memoryview]]:
        """Answers up to and including the acknowledgement of ``last``; those of others are passed over."""
        while True:
            data = self._receive()
            offset, end = 0, len(data)
            while offset < end:
                size, kind, _, seq, _ = _HEADER.unpack_from(data, offset)
                if first <= seq <= last:
                    yield seq, kind, data[offset + 16 : offset + size]
                if kind == _NLMSG_ERROR and seq == last:
                    return
                offset += (size + 3) & ~3

    def _receive(self) -> memoryview:
        return self._view[: self._sock.recv_into(self._buffer)]


def _failure(place: int, payload: memoryview) -> Failure:
    """An error or acknowledgement; its header of 20 bytes is followed by attributes (NETLINK_CAP_ACK)."""
    number = -_ERROR.unpack_from(payload)[0]
    words = b""
    if number:
        words = attributes(bytes(payload[20:])).get(_NLMSGERR_ATTR_MSG, b"")
    return Failure(place, number, string(words))


def _raise_for(kind: int, payload: memoryview) -> None:
    if len(payload) >= 4 and (number := -_ERROR.unpack_from(payload)[0]):
        raise _not_listed(kind, number)


def _not_listed(kind: int, number: int) -> KernelRefused:
    words = os.strerror(number)
    return KernelRefused(f"list netlink objects (type {kind})", number, words, listing_hint(number))
