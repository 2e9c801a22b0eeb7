"""nftables' own netlink: batches of messages as transactions, and dumps of what there is."""

import contextlib
import os
import socket
from errno import EMSGSIZE, ENOENT
from struct import Struct

from towpath.kernel.netlink import Message as Request
from towpath.kernel.netlink import NetlinkSocket
from towpath.kernel.wire import attributes

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYS, _GET_GENERATION = 10, 10 << 8 | 16
_REQUEST, _ACK = 0x1, 0x4
_NLMSG_ERROR = 2
_SOL_NETLINK, _CAP_ACK, _SO_SNDBUFFORCE = 270, 10, 32
_GENERATION_ID = 1
_SECONDS = 20.0
# What the kernel keeps of a send buffer for itself.
_SLACK = 64

_HEADER = Struct("=IHHII")
_ERROR = Struct("=i")
_BATCH = bytes((0, 0)) + _SUBSYS.to_bytes(2, "big")
_UNSPEC = bytes(4)

# Type, flags and body of a message of a batch.
Message = tuple[int, int, bytes]


class Refused(Exception):
    """The kernel refused a transaction, and nothing of it has happened."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class NftSocket:
    """The namespace of the thread that makes it. Not to be shared between threads. Raises OSError.

    ``shared`` is a socket of nftables' to send transactions by (a copy of the descriptor is kept): a table
    has one owner, and that is a socket. Whoever else sends by it must have had its answers. ``asking`` one to
    ask by, closed by ``close``: both speak of the namespaces they were opened in.
    """

    def __init__(self, shared: int = -1, asking: socket.socket | None = None) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if shared >= 0:
            self._sock = socket.socket(fileno=os.dup(shared))
        else:
            self._sock = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._sock.settimeout(_SECONDS)
        # Without this an error comes with the whole message it is about.
        self._sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._seq = 0
        self._limit = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _SLACK
        self._ask = NetlinkSocket(asking) if asking is not None else NetlinkSocket.open(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the sockets."""
        self._sock.close()
        self._ask.close()

    @property
    def port(self) -> int:
        """What the kernel knows the socket by that transactions are sent by; 0 before the first."""
        port: int = self._sock.getsockname()[0]
        return port

    def generation(self) -> int:
        """The number of the ruleset's last change, by anybody and in any table."""
        [found] = self._ask.get([Request(_GET_GENERATION, 0, _UNSPEC)])
        number = attributes(found, 4).get(_GENERATION_ID) if found is not None else None
        return int.from_bytes(number, "big") if number is not None else -1

    def get(self, kind: int, body: bytes) -> bytes | None:
        """One object, None if there is none. Raises OSError."""
        return self._ask.get([Request(kind, 0, body)])[0]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The messages of a dump. Raises OSError, KernelRefused."""
        return self._ask.dump(kind, body)

    def execute(self, steps: list[list[Message]]) -> int:
        """Carry out ``steps`` in one transaction, or in several if it exceeds what the socket can take.

        Returns their number. A step is never cut. Raises Refused if the kernel refused (what went before that
        transaction has happened), OSError if the outcome is unknown, or a step alone is too large (EMSGSIZE).
        """
        sizes = [sum(len(body) + 16 for _, _, body in step) for step in steps]
        limit = self._room(sum(sizes) + 40) - 40
        transactions: list[list[Message]] = [[]]
        left = limit
        for step, size in zip(steps, sizes, strict=True):
            if size > left and transactions[-1]:
                transactions.append([])
                left = limit
            if size > left:
                raise OSError(EMSGSIZE, "Message too long")
            transactions[-1] += step
            left -= size
        for transaction in transactions:
            self._execute(transaction)
        return len(transactions)

    def _room(self, wanted: int) -> int:
        """How much one send can take, raised to ``wanted`` where that is allowed.

        With NET_ADMIN over the first user namespace it is; else by what net.core.wmem_max says.
        """
        if wanted > self._limit:
            for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):
                    self._sock.setsockopt(socket.SOL_SOCKET, option, wanted + _SLACK)
                    break
            self._limit = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _SLACK
        return self._limit

    def _execute(self, messages: list[Message]) -> None:
        """Acknowledged is the last message: kernels before 6.10 answer neither begin nor end."""
        begin = self._seq + 1
        last = self._seq = begin + len(messages)
        batch = [_HEADER.pack(20, _BATCH_BEGIN, _REQUEST, begin, 0), _BATCH]
        for seq, (kind, flags, body) in enumerate(messages, begin + 1):
            ack = _ACK if seq == last else 0
            batch += (_HEADER.pack(16 + len(body), kind, _REQUEST | flags | ack, seq, 0), body)
        self._seq += 1
        batch += (_HEADER.pack(20, _BATCH_END, _REQUEST, self._seq, 0), _BATCH)
        self._sock.send(b"".join(batch))
        if errno := self._answer(begin, last):
            raise Refused(errno)

    def _answer(self, begin: int, last: int) -> int:
        """0, or an error; one about an absent element only if there is no other."""
        worst = 0
        while True:
            data = self._sock.recv(1 << 16)
            offset = 0
            while offset + _HEADER.size + _ERROR.size <= len(data):
                size, kind, _, seq, _ = _HEADER.unpack_from(data, offset)
                if kind == _NLMSG_ERROR and begin <= seq <= last:
                    errno = -_ERROR.unpack_from(data, offset + _HEADER.size)[0]
                    if errno and worst in (0, ENOENT):
                        worst = errno
                    if seq in (begin, last):
                        return worst
                offset += (size + 3) & ~3
