"""One connection of a shim: frames in and out, and the descriptors that come with the first byte."""

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Mapping

from towpath.cni import wire
from towpath.cni.request import PodDescriptors
from towpath.cni.wire import BadFrame, Executed

_MOST_DESCRIPTORS = 4
_SYSCTL_FOLDERS = ("net/ipv4", "net/ipv6")


class Connection:
    """A shim's end. Not to be used by several tasks at once, save that ``execute`` takes turns."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._fd = sock, sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self.hung_up = asyncio.Event()

    def peer_uid(self) -> int:
        """User id of the process that connected, as this user namespace sees it."""
        _, uid, _ = struct.unpack("3i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)

    async def receive_request(self) -> tuple[dict[str, str], bytes, PodDescriptors | None]:
        """Environment, stdin, descriptors. Raises BadFrame, ConnectionError."""
        first, fds = await self._receive_first()
        try:
            header = (
                first + await self._exactly(wire.HEADER.size - len(first)) if len(first) < 8 else first[:8]
            )
            body = first[8:]
            length = wire.body_length(header)
            if len(body) > length:
                raise BadFrame("more than one request")
            environment, stdin = wire.parse_body(body + await self._exactly(length - len(body)))
            return environment, stdin, _pod(fds)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    async def execute(
        self, path: str, env: Mapping[str, str], stdin: bytes, seconds: float | None = None
    ) -> Executed:
        """Have the shim run a delegate, and kill it after ``seconds``.

        Raises ConnectionError when it hangs up, ValueError for a NUL.
        """
        frame = wire.execute(path, dict(env), stdin)
        late = False

        def kill() -> None:
            nonlocal late
            late = True
            with contextlib.suppress(OSError):  # one byte; a shim that is gone is noticed below
                self._sock.send(wire.KILL)

        async with self._turn:
            if self.hung_up.is_set():
                raise ConnectionError("the shim is gone")
            self._loop.remove_reader(self._fd)
            timer = self._loop.call_later(seconds, kill) if seconds is not None else None
            try:
                await self._loop.sock_sendall(self._sock, frame)
                status, length = wire.executed_header(await self._exactly(wire.EXECUTED.size))
                stdout = await self._exactly(length)
                stderr = await self._exactly(wire.stderr_length(await self._exactly(wire.LENGTH.size)))
            except (OSError, BadFrame) as err:
                self.hung_up.set()
                raise ConnectionError(f"the shim is gone: {err}") from err
            finally:
                if timer is not None:
                    timer.cancel()
            self.watch()
            return Executed(status, stdout, stderr, late)

    async def hand_over(self, what: str, path: str) -> list[int]:
        """Have the shim open what only it can, and pass it on: ``netfilter`` two sockets of nftables in the
        namespace at ``path``, ``kubelet`` a connection to its socket there. The descriptors are the caller's.

        Raises ConnectionError when it hangs up, OSError with its reason, ValueError for a NUL.
        """
        frame = wire.hand_over(what, path)
        async with self._turn:
            if self.hung_up.is_set():
                raise ConnectionError("the shim is gone")
            self._loop.remove_reader(self._fd)
            fds: list[int] = []
            try:
                await self._loop.sock_sendall(self._sock, frame)
                data, fds = await self._receive_first()
                size = wire.EXECUTED.size + wire.LENGTH.size
                data += await self._exactly(size - len(data))
                status, _ = wire.executed_header(data[: wire.EXECUTED.size])
                length = wire.stderr_length(data[wire.EXECUTED.size : size])
                words = data[size:] + await self._exactly(length - (len(data) - size))
            except (OSError, BadFrame) as err:
                for fd in fds:
                    os.close(fd)
                self.hung_up.set()
                raise ConnectionError(f"the shim is gone: {err}") from err
            self.watch()
        if status != 0 or not fds:
            raise OSError(words.decode(errors="replace") or "the shim handed nothing over")
        return fds

    def watch(self) -> None:
        """From now on notice when the caller hangs up: a shim has nothing to say unless asked."""
        self._loop.add_reader(self._fd, self._readable)

    async def answer(self, exit_code: int, stdout: bytes) -> bool:
        """Send the answer; False if nobody was there to take it."""
        self._loop.remove_reader(self._fd)
        if self.hung_up.is_set():
            return False
        try:
            await self._loop.sock_sendall(self._sock, wire.answer(exit_code, stdout))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        self._loop.remove_reader(self._fd)
        self._sock.close()

    def _readable(self) -> None:
        self._loop.remove_reader(self._fd)
        self.hung_up.set()

    async def _receive_first(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, control, flags, _ = self._sock.recvmsg(
                    1 << 16, socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
                )
                break
            except BlockingIOError:
                await self._wait_readable()
        fds = array.array("i")
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data or flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise ConnectionError(
                "descriptors were lost" if data else "the shim hung up before it asked anything"
            )
        return data, list(fds)

    async def _wait_readable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(self._fd)

    async def _exactly(self, length: int) -> bytes:
        parts = []
        while length > 0:
            part = await self._loop.sock_recv(self._sock, min(length, 1 << 18))
            if not part:
                raise ConnectionError("the shim hung up")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)


def _pod(fds: list[int]) -> PodDescriptors | None:
    """Netns, netlink socket and sysctl folders, in the order the shim passes them. Raises BadFrame."""
    if not fds:
        return None
    if len(fds) < 3:
        raise BadFrame(f"{len(fds)} descriptors")
    try:
        netlink = socket.socket(fileno=fds[1])
    except OSError as err:
        raise BadFrame(f"the second descriptor is no socket: {err}") from err
    return PodDescriptors(fds[0], netlink, dict(zip(_SYSCTL_FOLDERS, fds[2:], strict=False)))
