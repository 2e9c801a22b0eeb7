"""What nftables' ``log group N`` tells: netlink messages of nfnetlink_log as values (uapi nfnetlink_log.h).

Reading is pure, and takes any bytes for what they are worth: a message that is cut short, or a packet without
ports where they should be, is told as far as it goes. What the kernel cannot deliver is lost and counted:
it numbers its messages, and says so when a socket's buffer was full (ENOBUFS).
"""

import socket
from collections.abc import Iterator
from errno import EAGAIN, EBUSY, EINTR, ENOBUFS, EPERM
from struct import Struct
from typing import NamedTuple

from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.port import KernelRefused
from towpath.kernel.wire import address, attr, attributes, string
from towpath.model.net import Addr

_NETLINK_NETFILTER = 12
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_HOOK, _TIMESTAMP, _CAME_BY, _LEAVES_BY, _PAYLOAD, _PREFIX, _SEQUENCE = 1, 3, 4, 5, 9, 10, 12
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = 1, 2, 4, 5, 6
_BIND, _COPY_PACKET, _NUMBERED = 1, 2, 1
# Of each packet: both headers, with some of IPv6's extension headers.
_COPIED = 128
# Messages are sent on when there are so many, or after so many hundredths of a second.
_AT_ONCE, _HUNDREDTHS = 32, 10
_PIECE = 1 << 16
# The kernel says EPERM to both.
_TAKEN = "another process listens to this group (policy_log_group names another), or NET_ADMIN is missing"

_HEADER = Struct("=IHHII")
_TIME = Struct(">QQ")
_PORTS = Struct(">HH")
_ICMP, _ICMPV6, _FRAGMENT, _AUTHENTICATION = 1, 58, 44, 51
_EXTENSIONS = frozenset({0, 43, 60, 135, _FRAGMENT, _AUTHENTICATION})
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
_MOST_EXTENSIONS = 8


class Seen(NamedTuple):
    """An IP packet, as far as it could be read. ``first`` and ``second``: source and destination port, or
    ICMP's type and code; -1 where there is none.
    """

    source: Addr
    destination: Addr
    protocol: int
    first: int = -1
    second: int = -1


class LogMessage(NamedTuple):
    """``time`` in seconds since the epoch, 0 if the kernel had none; ``sequence`` -1 if it was not numbered;
    ``packet`` None where it is no IP packet. ``hook`` as netfilter numbers them, -1 if it was not told;
    ``came_by`` and ``leaves_by``: indexes of interfaces, 0 for none.
    """

    prefix: str
    packet: Seen | None
    time: float = 0.0
    sequence: int = -1
    hook: int = -1
    came_by: int = 0
    leaves_by: int = 0


def messages(data: bytes) -> Iterator[LogMessage]:
    """Those in what one ``recv`` gave. Never raises."""
    offset, end = 0, len(data)
    while offset + _HEADER.size <= end:
        size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > end:
            return
        if kind == _PACKET:
            yield _message(data[offset + _HEADER.size : offset + size])
        offset += (size + 3) & ~3


def _message(body: bytes) -> LogMessage:
    found = attributes(body, 4)
    stamp, number = found.get(_TIMESTAMP, b""), found.get(_SEQUENCE, b"")
    time = 0.0
    if len(stamp) == _TIME.size:
        seconds, micros = _TIME.unpack(stamp)
        time = seconds + micros / 1e6 if seconds < 1 << 40 else 0.0
    return LogMessage(
        prefix=string(found.get(_PREFIX, b"")),
        packet=packet(found.get(_PAYLOAD, b"")),
        time=time,
        sequence=int.from_bytes(number, "big") if len(number) == 4 else -1,
        hook=head[2] if len(head := found.get(_HOOK, b"")) == 4 else -1,
        came_by=int.from_bytes(found.get(_CAME_BY, b"")[:4], "big"),
        leaves_by=int.from_bytes(found.get(_LEAVES_BY, b"")[:4], "big"),
    )


def packet(raw: bytes) -> Seen | None:
    """An IPv4 or IPv6 packet's beginning; None if it is neither."""
    version = raw[0] >> 4 if raw else 0
    if version == 4 and len(raw) >= 20:
        first = not int.from_bytes(raw[6:8], "big") & 0x1FFF
        behind = (raw[0] & 15) * 4 if first else len(raw)
        return _seen(raw[12:16], raw[16:20], raw[9], raw[max(behind, 20) :])
    if version == 6 and len(raw) >= 40:
        protocol, behind = _extensions(raw)
        return _seen(raw[8:24], raw[24:40], protocol, raw[behind:])
    return None


def _extensions(raw: bytes) -> tuple[int, int]:
    """The protocol behind IPv6's extension headers (RFC 8200 §4), and where it begins."""
    protocol, offset = raw[6], 40
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS or offset + 8 > len(raw):
            break
        if protocol == _FRAGMENT:
            if int.from_bytes(raw[offset + 2 : offset + 4], "big") & 0xFFF8:
                return raw[offset], len(raw)  # not the first
            size = 8
        elif protocol == _AUTHENTICATION:
            size = (raw[offset + 1] + 2) * 4
        else:
            size = (raw[offset + 1] + 1) * 8
        protocol, offset = raw[offset], offset + size
    return protocol, offset


def _seen(source: bytes, destination: bytes, protocol: int, behind: bytes) -> Seen:
    first = second = -1
    if protocol in _WITH_PORTS and len(behind) >= 4:
        first, second = _PORTS.unpack_from(behind)
    elif protocol in (_ICMP, _ICMPV6) and len(behind) >= 2:
        first, second = behind[0], behind[1]
    return Seen(address(source), address(destination), protocol, first, second)


class LogSocket:
    """The only listener of one group in the calling thread's network namespace.

    It needs NET_ADMIN over that namespace's user namespace, and nothing else. ``overruns``: how often the
    kernel said that it had to drop. Raises KernelRefused if another process listens to the group, OSError.
    """

    def __init__(self, group: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self.overruns = 0
        try:
            self._configure(group)
        except BaseException:
            self._sock.close()
            raise

    def _configure(self, group: int) -> None:
        asking = NetlinkSocket(self._sock)
        head = bytes((0, 0)) + group.to_bytes(2, "big")
        bind = attr(_CFG_CMD, bytes((_BIND,)))
        settings = (
            attr(_CFG_MODE, _COPIED.to_bytes(4, "big") + bytes((_COPY_PACKET, 0)))
            + attr(_CFG_TIMEOUT, _HUNDREDTHS.to_bytes(4, "big"))
            + attr(_CFG_QTHRESH, _AT_ONCE.to_bytes(4, "big"))
            + attr(_CFG_FLAGS, _NUMBERED.to_bytes(2, "big"))
        )
        failures = asking.request([Message(_CONFIG, 0, head + bind), Message(_CONFIG, 0, head + settings)])
        if failures:
            number = failures[0].errno
            op, reason = f"listen to NFLOG group {group}", failures[0].reason()
            raise KernelRefused(op, number, reason, _TAKEN if number in (EBUSY, EPERM) else "")
        self._sock.setblocking(False)

    def fileno(self) -> int:
        """For an event loop."""
        return self._sock.fileno()

    def close(self) -> None:
        """Listen no longer."""
        self._sock.close()

    def read(self) -> list[LogMessage] | None:
        """What has come, None if nothing has. Raises OSError if the socket is of no more use."""
        try:
            data = self._sock.recv(_PIECE)
        except OSError as error:
            if error.errno == ENOBUFS:
                self.overruns += 1
                return []
            if error.errno in (EAGAIN, EINTR):
                return None
            raise
        return list(messages(data))
