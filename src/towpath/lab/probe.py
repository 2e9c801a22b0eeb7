"""Who reaches whom: many targets at once from one network namespace, without a program in the pod.

TCP connects, says a line and waits for the echo; UDP sends until answered; ICMP echo by raw socket; SCTP by
an INIT chunk. The first line of an answer names the pod (or the address) that gave it.
"""

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Literal

import msgspec

from towpath.lab import workload_sctp

_PAYLOAD = b"towpath probe\n"
_RETRY = 0.25  # seconds between datagrams
_ICMP_ECHO, _ICMP_REPLY, _ICMP6_ECHO, _ICMP6_REPLY = 8, 0, 128, 129


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where to: ``port`` is of no meaning for icmp."""

    addr: str
    port: int = 0
    proto: Literal["tcp", "udp", "icmp", "sctp"] = "tcp"


class Outcome(msgspec.Struct, kw_only=True):
    """How it went. ``ms`` until the answer; ``answer`` its first line; ``error`` in the system's words."""

    addr: str
    port: int
    proto: str
    ok: bool = False
    ms: float = 0.0
    answer: str = ""
    error: str = "timeout"


class _Try:
    """One destination under way: a socket, when to send (again), how to read what comes."""

    def __init__(self, to: Destination) -> None:
        self.to = to
        self.outcome = Outcome(addr=to.addr, port=to.port, proto=to.proto)
        self.begun = time.monotonic()
        self.send_at = self.begun
        self._v6 = ip_address(to.addr).version == 6
        family = socket.AF_INET6 if self._v6 else socket.AF_INET
        self._tag = random.randrange(1, 1 << 16)  # noqa: S311 (matches answers to questions)
        icmp = socket.IPPROTO_ICMPV6 if self._v6 else socket.IPPROTO_ICMP
        kinds: dict[str, tuple[socket.SocketKind, int, Callable[[], bytes]]] = {
            "tcp": (socket.SOCK_STREAM, 0, lambda: _PAYLOAD),
            "udp": (socket.SOCK_DGRAM, 0, lambda: _PAYLOAD),
            "icmp": (socket.SOCK_RAW, icmp, self._echo_request),
            "sctp": (socket.SOCK_RAW, workload_sctp.IPPROTO_SCTP, self._init),
        }
        kind, protocol, self._message = kinds[to.proto]
        self.socket = socket.socket(family, kind, protocol)
        self.socket.setblocking(False)
        self.connecting = to.proto == "tcp"
        port = to.port if kind is not socket.SOCK_RAW else 0
        with suppress(BlockingIOError):
            self.socket.connect((to.addr, port))

    @property
    def answered(self) -> bool:
        """Whether nothing more is to come."""
        return self.outcome.ok or self.outcome.error != "timeout"

    def writable(self, now: float) -> None:
        """Say it (again): datagrams are repeated, a stream's line is not."""
        if self.connecting:
            if code := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.outcome.error = os.strerror(code)
                return
            self.connecting = False
        self.socket.send(self._message())
        self.send_at = now + _RETRY if self.to.proto != "tcp" else float("inf")

    def readable(self) -> None:
        """Judge what came."""
        data = self.socket.recv(2048)
        if not data and self.to.proto == "tcp":
            self.outcome.error = "closed without an answer"
            return
        answer = self._answer_in(data)
        if answer is not None:
            self.outcome.ok, self.outcome.error = True, ""
            self.outcome.ms = round((time.monotonic() - self.begun) * 1000, 3)
            self.outcome.answer = answer

    def failed(self, error: OSError) -> None:
        """The system refused."""
        self.outcome.error = error.strerror or str(error)

    def _answer_in(self, data: bytes) -> str | None:
        if self.to.proto in ("tcp", "udp"):
            return data.split(b"\n", 1)[0].decode(errors="replace")
        if not self._v6:
            data = data[(data[0] & 0x0F) * 4 :]
        if self.to.proto == "icmp":
            reply = _ICMP6_REPLY if self._v6 else _ICMP_REPLY
            kind, _, _, tag = struct.unpack_from("!BBHH", data)
            return "echo reply" if (kind, tag) == (reply, self._tag) else None
        packet = workload_sctp.decode(data)
        if packet is None or packet.source != self.to.port:
            return None
        if packet.chunk == workload_sctp.ABORT:
            self.outcome.error = "aborted"
            return None
        return workload_sctp.identity_of(packet) if packet.chunk == workload_sctp.INIT_ACK else None

    def _echo_request(self) -> bytes:
        kind = _ICMP6_ECHO if self._v6 else _ICMP_ECHO
        body = struct.pack("!BBHHH", kind, 0, 0, self._tag, 1) + _PAYLOAD
        checksum = 0 if self._v6 else _internet_checksum(body)  # ICMPv6: the kernel fills it in
        return struct.pack("!BBHHH", kind, 0, checksum, self._tag, 1) + _PAYLOAD

    def _init(self) -> bytes:
        return workload_sctp.init(40000 + self._tag % 20000, self.to.port, self._tag)


def probe(destinations: list[Destination], timeout: float) -> list[Outcome]:
    """Try all at once from this process's network namespace; ``timeout`` seconds for all of it."""
    outcomes: list[Outcome] = []
    tries: list[_Try] = []
    for to in destinations:
        try:
            attempt = _Try(to)
            tries.append(attempt)
            outcomes.append(attempt.outcome)
        except (OSError, ValueError) as refused:
            words = getattr(refused, "strerror", None) or str(refused)
            outcomes.append(Outcome(addr=to.addr, port=to.port, proto=to.proto, error=words))
    deadline = time.monotonic() + timeout
    while (left := [t for t in tries if not t.answered]) and time.monotonic() < deadline:
        _turn(left, deadline)
    for attempt in tries:
        attempt.socket.close()
    return outcomes


def _turn(tries: list[_Try], deadline: float) -> None:
    now = time.monotonic()
    poller = select.poll()
    by_fd = {t.socket.fileno(): t for t in tries}
    for fd, attempt in by_fd.items():
        wants_out = attempt.connecting or attempt.send_at <= now
        poller.register(fd, select.POLLIN | (select.POLLOUT if wants_out else 0))
    wake = min([deadline, *(t.send_at for t in tries if not t.connecting)])
    for fd, events in poller.poll(max(0.0, wake - now) * 1000 + 1):
        attempt = by_fd[fd]
        try:
            if events & (select.POLLOUT | select.POLLERR) and (attempt.connecting or attempt.send_at <= now):
                attempt.writable(time.monotonic())
            if events & (select.POLLIN | select.POLLERR | select.POLLHUP) and not attempt.connecting:
                attempt.readable()
        except BlockingIOError:
            continue
        except OSError as refused:
            attempt.failed(refused)


def _internet_checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    folded = (total + (total >> 16)) & 0xFFFF
    return folded ^ 0xFFFF
