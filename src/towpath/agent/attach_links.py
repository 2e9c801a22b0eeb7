"""Deleting links without waiting for the kernel to be done with them.

``RTM_DELLINK`` returns after some 20 to 30 ms, most of which the kernel spends waiting for its own readers
(RCU) when nothing can use the device any more. It announces the removal after about one. So the request is
made in a thread, and the wait is for the announcement.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from struct import Struct

from towpath.kernel.port import Kernel
from towpath.kernel.wire import attributes, string
from towpath.model.op import DelLink

_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_RTNLGRP_LINK = 1
_RTM_DELLINK = 17
_IFLA_IFNAME = 3
_HEADER = Struct("=IHHII")
_IFINFO_SIZE = 16
_THREADS = 16


class LinkRemover:
    """Removes links of the namespace it was made in.

    ``connect`` makes a kernel for the calling thread, which is used once. To be used from one event loop.
    """

    def __init__(self, connect: Callable[[], contextlib.AbstractContextManager[Kernel]]) -> None:
        """Raises OSError."""
        self._connect = connect
        self._threads = ThreadPoolExecutor(_THREADS, "link-removal")
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._notices = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._notices.bind((0, 0))

    def close(self) -> None:
        """Wait for removals under way, then close."""
        self._threads.shutdown()
        self._notices.close()

    async def remove(self, names: Iterable[str]) -> None:
        """Return when none of the links exists any more, or ever did. Raises KernelRefused."""
        await asyncio.gather(*(self._remove(name) for name in names))

    async def _remove(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        announced: asyncio.Future[None] = loop.create_future()
        self._listen(name, announced)
        try:
            done = loop.run_in_executor(self._threads, self._delete, name)
            await asyncio.wait({announced, done}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                await done
            else:
                done.add_done_callback(_consume)
        finally:
            self._forget(name, announced)

    def _delete(self, name: str) -> None:
        with self._connect() as kernel:
            kernel.apply([DelLink(name)])

    def _listen(self, name: str, announced: "asyncio.Future[None]") -> None:
        if not self._awaited:
            self._notices.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _RTNLGRP_LINK)
            asyncio.get_running_loop().add_reader(self._notices, self._read)
        self._awaited.setdefault(name, []).append(announced)

    def _forget(self, name: str, announced: "asyncio.Future[None]") -> None:
        announced.cancel()
        waiting = self._awaited[name]
        waiting.remove(announced)
        if not waiting:
            del self._awaited[name]
        if not self._awaited:
            asyncio.get_running_loop().remove_reader(self._notices)
            self._notices.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _RTNLGRP_LINK)

    def _read(self) -> None:
        while True:
            try:
                data = self._notices.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                # Announcements were lost (ENOBUFS): the removals still end, their threads tell.
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            for name in _removed(data):
                for announced in self._awaited.get(name, ()):
                    if not announced.done():
                        announced.set_result(None)


def exists(name: str) -> bool:
    """Whether the calling thread's namespace has a link of that name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def _removed(data: bytes) -> Iterable[str]:
    """Names of the links whose end a datagram announces (a bridge port's leaving its bridge is not one)."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind = _HEADER.unpack_from(data, offset)[:2]
        body = data[offset + _HEADER.size : offset + size]
        if kind == _RTM_DELLINK and body and body[0] == socket.AF_UNSPEC:
            yield string(attributes(body, _IFINFO_SIZE).get(_IFLA_IFNAME, b""))
        offset += max((size + 3) & ~3, _HEADER.size)


def _consume(done: "asyncio.Future[None]") -> None:
    """A removal that was announced and then reported an error did happen."""
    if not done.cancelled():
        done.exception()
