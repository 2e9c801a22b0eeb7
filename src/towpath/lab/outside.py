"""The lab's outside host as a party of a probe run: it answers, and it asks."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

import msgspec

from towpath.lab import on_time, rundir
from towpath.lab.client import LabClient
from towpath.probe.objects import LISTENS
from towpath.probe.plan import Plan

_MODULE = (sys.executable, "-m", "towpath.probe")
_LINE = 4 * 1024 * 1024


class OutsideHost:
    """``probe.source.Outside`` by way of the lab's ``exec``. Raises LabError."""

    def __init__(self, lab: LabClient) -> None:
        self._lab = lab
        self.addresses: tuple[str, ...] = tuple(lab.call("inspect")["outside"])
        self._connections: list[socket.socket] = []

    async def answer(self) -> None:
        """Listen on the target's ports."""
        null = os.open(os.devnull, os.O_RDWR)
        try:
            listens = [f"{port}/{kind}" for port, kind in LISTENS]
            self._exec([*_MODULE, "serve", "outside", *listens], [null, null, null])
        finally:
            os.close(null)

    async def ask(self, plan: Plan) -> "OutsideProber":
        """Start a prober; it ends when its standard input is closed."""
        plan_read, plan_write = os.pipe()
        lines_read, lines_write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            self._exec([*_MODULE, "run", "-"], [plan_read, lines_write, null])
        finally:
            for fd in (plan_read, lines_write, null):
                os.close(fd)
        text = memoryview(msgspec.json.encode(plan) + b"\n")
        while text:
            text = text[os.write(plan_write, text) :]
        return OutsideProber(plan.prober, plan_write, lines_read)

    def _exec(self, command: list[str], fds: list[int]) -> None:
        self._connections.append(
            self._lab.open("exec", fds=fds, target="outside", command=command, container="", tty=False)
        )

    def be_on_time(self) -> None:
        """Real-time scheduling for all probers and targets of the lab, where this user may give it."""
        on_time.give(rundir.read_about(self._lab.folder).keeper, b"towpath.probe")

    async def close(self) -> None:
        """End everything that was started: the lab kills what belongs to a connection that is closed."""
        for connection in self._connections:
            connection.close()


class OutsideProber:
    """``probe.source.Source`` over a pipe."""

    def __init__(self, name: str, stdin: int, stdout: int) -> None:
        self.name = name
        self._stdin, self._stdout = stdin, stdout

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Until the prober closes its end."""
        reader = asyncio.StreamReader(limit=_LINE)
        pipe = os.fdopen(self._stdout, "rb")
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            async for line in reader:
                yield line.rstrip(b"\n")
        finally:
            transport.close()

    async def stop(self) -> None:
        """Close its standard input."""
        with suppress(OSError):
            os.close(self._stdin)
