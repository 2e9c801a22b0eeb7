"""/healthz, /readyz, /metrics and /policy: on loopback as they are, elsewhere behind TLS or a bearer token.

A few lines on asyncio streams instead of a web framework: a few GETs do not justify its memory.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from towpath.log import get_logger

log = get_logger("towpath.health")

_HEAD_LIMIT = 8192
_SECONDS_TO_ASK = 5.0
_MOST_AT_ONCE = 32
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Unavailable",
}


class Page(NamedTuple):
    """An answer: HTTP status and text."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


Handler = Callable[[Mapping[str, str]], Awaitable[Page]]
"""Gets what is asked for after the ``?``, of a name the last."""


class HealthServer:
    """Serves ``pages`` by path. ``token_file`` is read at every request, so that it can be replaced."""

    def __init__(self, pages: Mapping[str, Handler], token_file: Path | None = None) -> None:
        self._pages, self._token_file = pages, token_file
        self._server: asyncio.Server | None = None
        self._slots = asyncio.Semaphore(_MOST_AT_ONCE)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen; the port it got is returned. Raises OSError."""
        everywhere = None if host == "::" else host  # of both families; asyncio takes :: for IPv6 alone
        self._server = await asyncio.start_server(self._serve, everywhere, port, ssl=tls, limit=_HEAD_LIMIT)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._slots, asyncio.timeout(_SECONDS_TO_ASK):
                head = await reader.readuntil(b"\r\n\r\n")
                page = await self._answer(head.decode("latin-1").split("\r\n"))
                body = page.text.encode()
                writer.write(
                    f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                )
                writer.write(b"" if head.startswith(b"HEAD ") else body)
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client left, dawdled or sent no HTTP
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, lines: list[str]) -> Page:
        method, _, rest = lines[0].partition(" ")
        if method not in ("GET", "HEAD"):
            return Page(405, "only GET\n")
        if not self._allowed(lines[1:]):
            return Page(401, "a bearer token is needed\n")
        path, _, query = rest.split(" ")[0].partition("?")
        handler = self._pages.get(path)
        if handler is None:
            return Page(404, "\n".join(sorted(self._pages)) + "\n")
        return await handler(dict(parse_qsl(query)))

    def _allowed(self, headers: list[str]) -> bool:
        if self._token_file is None:
            return True
        import hmac

        try:
            token = self._token_file.read_text().strip()
        except OSError as e:
            log.error("health_token_unreadable", path=str(self._token_file), error=str(e))
            return False
        given = ""
        for line in headers:
            name, _, value = line.partition(":")
            if name.strip().lower() == "authorization":
                given = value.strip()
        wanted = f"Bearer {token}"
        return bool(token) and hmac.compare_digest(given.encode(), wanted.encode())


def server_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context for serving, None without a certificate. Raises OSError (ssl.SSLError is one)."""
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context
