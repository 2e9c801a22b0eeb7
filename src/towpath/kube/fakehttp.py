"""The HTTP half of the fake API server: small, and able to misbehave on purpose."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

Pieces = AsyncGenerator[bytes, None]


class Request(NamedTuple):
    """One request, read whole. Header names are lower case."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """``body``: an object sent as JSON, or a generator whose pieces become chunks of a stream."""

    status: int
    body: Any
    headers: Mapping[str, str] = MappingProxyType({})


class Server:
    """Serves one handler; ``close()`` cuts every connection without a word."""

    def __init__(
        self, handler: Callable[[Request], Awaitable[Answer]], bind: Callable[[int], socket.socket]
    ) -> None:
        self._handler, self._bind = handler, bind
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen on ``port``, 0 for any; returns the port."""
        self._server = await asyncio.start_server(self._accept, sock=self._bind(port), ssl=tls)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and drop every connection. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                answer = await self._handler(request)
                if isinstance(answer.body, AsyncGenerator):
                    await _send_stream(answer, reader, writer)
                else:
                    writer.write(_whole(answer))
                    await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


def loopback(port: int) -> socket.socket:
    """A socket bound to ``port`` of 127.0.0.1."""
    return socket.create_server(("127.0.0.1", port))


async def _read(reader: asyncio.StreamReader) -> Request | None:
    line = (await reader.readline()).decode()
    if not line:
        return None
    method, target, _ = line.split(" ")
    headers = {}
    while (header := (await reader.readline()).decode().strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    return Request(method, target, unquote(url.path), dict(parse_qsl(url.query)), headers, body)


def _head(answer: Answer, framing: str) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Whatever", "Content-Type: application/json", framing]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _whole(answer: Answer) -> bytes:
    body = msgspec.json.encode(answer.body)
    return _head(answer, f"Content-Length: {len(body)}") + body


async def _send_stream(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Chunks as they come; ends when the generator does, or when the client hangs up."""
    writer.write(_head(answer, "Transfer-Encoding: chunked"))

    async def pump() -> None:
        async with contextlib.aclosing(answer.body) as pieces:
            async for piece in pieces:
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
        writer.write(b"0\r\n\r\n")

    pumping = asyncio.ensure_future(pump())
    hangup = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((pumping, hangup), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (pumping, hangup):
            task.cancel()
        results = await asyncio.gather(pumping, hangup, return_exceptions=True)
    if results[0] is not None or not isinstance(results[1], asyncio.CancelledError):
        raise EOFError("stream over")
