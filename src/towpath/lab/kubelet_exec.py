"""One exec session: the Kubernetes WebSocket channel protocol on one side, a process on the other.

Every message is binary; its first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the final
``metav1.Status`` as JSON, 4 terminal size as JSON, 255 (v5 only) "this channel is closed".
"""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from towpath.lab.runtime_api import Exec, RuntimeRefused
from towpath.lab.runtime_session import Session

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_PIECE = 32 * 1024


def subprotocol(offered: Iterable[str]) -> tuple[str, ...]:
    """The best protocol both sides speak, as a tuple of one, or none."""
    names = {name.strip() for header in offered for name in header.split(",")}
    return next(((p,) for p in PROTOCOLS if p in names), ())


def final_status(exit_code: int) -> dict[str, Any]:
    """The Status kubectl turns into its own exit code."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {exit_code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


def failure(message: str) -> dict[str, Any]:
    """The Status of a command that could not be started."""
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}


class ExecStreams:
    """Pipes (or a terminal) of one process, pumped to and from the socket."""

    def __init__(self, socket: web.WebSocketResponse, runtime: Path, request: Exec, *, stdin: bool) -> None:
        self._socket, self._runtime, self._request, self._stdin = socket, runtime, request, stdin
        self._input = -1
        self._outputs: dict[int, int] = {}

    async def run(self) -> None:
        """Start the process, pump until it ends, send the final status."""
        theirs = self._open()
        try:
            session = Session(self._runtime, self._request, theirs)
        except (RuntimeRefused, OSError) as refused:
            await self._send(ERROR, json.dumps(failure(str(refused))).encode())
            self._close_ours()
            return
        finally:
            for fd in set(theirs):
                os.close(fd)
        reading = asyncio.create_task(self._read_socket())
        pumps = [asyncio.create_task(self._pump(fd, channel)) for channel, fd in self._outputs.items()]
        try:
            ended = asyncio.create_task(session.wait())
            await asyncio.wait({ended, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():  # the client hung up: closing the session kills the process
                ended.cancel()
                return
            await asyncio.wait(pumps, timeout=1.0)  # a grandchild may hold the pipe for ever
            with contextlib.suppress(ConnectionError):
                await self._send(ERROR, json.dumps(final_status(ended.result())).encode())
        finally:
            for task in (reading, *pumps):
                task.cancel()
            session.close()
            self._close_ours()

    def _open(self) -> tuple[int, int, int]:
        """Make the process's descriptors; ours stay in this object."""
        if self._request.tty:
            ours, theirs = pty.openpty()
            self._input, self._outputs = ours, {STDOUT: ours}
            os.set_blocking(ours, False)
            return theirs, theirs, theirs
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._input, self._outputs = in_write, {STDOUT: out_read, STDERR: err_read}
        for fd in (in_write, out_read, err_read):
            os.set_blocking(fd, False)
        if not self._stdin:
            self._close_input()
        return in_read, out_write, err_write

    def _close_input(self) -> None:
        if self._input >= 0 and self._input not in self._outputs.values():
            os.close(self._input)
            self._input = -1

    def _close_ours(self) -> None:
        self._close_input()
        for fd in self._outputs.values():
            os.close(fd)
        self._outputs = {}

    async def _send(self, channel: int, data: bytes) -> None:
        await self._socket.send_bytes(bytes([channel]) + data)

    async def _pump(self, fd: int, channel: int) -> None:
        """Process output to the socket, until end-of-file (EIO on a terminal)."""
        while True:
            try:
                data = os.read(fd, _PIECE)
            except BlockingIOError:
                await _ready(fd, write=False)
                continue
            except OSError:
                return
            if not data:
                return
            await self._send(channel, data)

    async def _read_socket(self) -> None:
        """Input and terminal sizes from the socket, until it is closed."""
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                data = message.data.encode()
            elif message.type is WSMsgType.BINARY:
                data = message.data
            else:
                return
            if data:
                await self._take(data[0], data[1:])

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == STDIN:
            await self._write(data)
        elif channel == RESIZE and self._request.tty:
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError, struct.error):
                size = json.loads(data)
                packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, packed)
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            self._close_input()

    async def _write(self, data: bytes) -> None:
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                await _ready(self._input, write=True)
            except OSError:  # the process closed its stdin
                self._close_input()


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await ready
    finally:
        remove(fd)
