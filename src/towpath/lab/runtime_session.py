"""One process run through the runtime's Exec, from asyncio: start, wait, exit code."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from towpath.lab.runtime_api import MESSAGE, PACKET, Exec, Exited, RuntimeRefused, call, connect


class Session:
    """A process started with Exec. Closing the session kills it if it still runs."""

    def __init__(self, path: Path, request: Exec, fds: Sequence[int]) -> None:
        """Start with ``fds`` as stdin, stdout, stderr (copied). Raises RuntimeRefused, OSError."""
        self._connection: socket.socket = connect(path)
        try:
            self.pid = call(self._connection, request, fds).pid
        except BaseException:
            self._connection.close()
            raise
        self._connection.setblocking(False)

    async def wait(self) -> int:
        """The exit code, 128 + signal for a killed process. Raises RuntimeRefused when the node goes."""
        packet = await asyncio.get_running_loop().sock_recv(self._connection, PACKET)
        try:
            message = MESSAGE.decode(packet)
        except msgspec.DecodeError as gone:
            raise RuntimeRefused("the node's runtime went away") from gone
        if not isinstance(message, Exited):
            raise RuntimeRefused(f"unexpected message {packet!r}")
        return message.exit_code

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


async def run_to_end(path: Path, request: Exec, fds: Sequence[int]) -> int:
    """Run a command and wait for its exit code; cancelled, it is killed. Raises RuntimeRefused, OSError."""
    session = Session(path, request, fds)
    try:
        return await session.wait()
    finally:
        session.close()
