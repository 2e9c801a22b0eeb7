"""HTTP/1.1 as far as an API server needs it, on asyncio streams (RFC 9112).

Why not aiohttp: importing it costs every agent 200 ms of CPU and 10 MB (docs/adr/0004). What is here:
keep-alive pool, bodies by length, chunked or until close, TLS, and HTTP proxies through CONNECT. What is
not, because no API server needs it of a client: redirects, cookies, compression, 100-continue.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from urllib.parse import SplitResult, urlsplit

_HEAD_LIMIT = 64 * 1024
_READ_SIZE = 64 * 1024
_IDLE_SECONDS = 30.0
_IDLE_CONNECTIONS = 8
_CONNECT_SECONDS = 10.0


class HttpError(Exception):
    """The exchange failed: refused, cut, timed out, or (``protocol``) not HTTP."""

    def __init__(self, reason: str, *, protocol: bool = False) -> None:
        super().__init__(reason)
        self.protocol = protocol


class Response:
    """Status and headers of an answer; its body is read once, whole or in pieces.

    Header names are lower case. A response must be read to its end or closed.
    """

    def __init__(
        self, connection: "_Connection", status: int, headers: dict[str, str], bodiless: bool
    ) -> None:
        self.status, self.headers = status, headers
        self._connection = connection
        self._bodiless = bodiless

    async def read(self) -> bytes:
        """The whole body. Raises HttpError when it is cut short."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, in pieces of the sender's making. Raises HttpError when it is cut short."""
        done = False
        try:
            async for piece in self._framed():
                yield piece
            done = True
        except (OSError, EOFError, ValueError) as e:
            raise HttpError(f"answer cut short: {_words(e)}") from e
        finally:
            self._connection.done(reusable=done and self._persistent())

    def close(self) -> None:
        """Give up on the rest of the body; the connection is not used again."""
        self._connection.done(reusable=False)

    def _persistent(self) -> bool:
        framed = self._bodiless or "content-length" in self.headers or self._chunked()
        return framed and "close" not in self.headers.get("connection", "").lower()

    def _chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    async def _framed(self) -> AsyncGenerator[bytes, None]:
        reader = self._connection.reader
        if self._bodiless:
            return
        if self._chunked():
            while size := await _chunk_size(reader):
                yield await reader.readexactly(size)
                await _expect_newline(reader)
            while (await reader.readline()).strip():
                pass  # trailers
        elif (length := self.headers.get("content-length")) is not None:
            if int(length):
                yield await reader.readexactly(int(length))
        else:
            while piece := await reader.read(_READ_SIZE):
                yield piece


class _Connection:
    """One socket, one exchange at a time."""

    def __init__(self, pool: "HttpPool", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.idle_since = 0.0
        self.used = False
        self._pool = pool

    async def exchange(self, method: str, head: bytes, body: bytes) -> Response:
        self.writer.write(head + body)
        await self.writer.drain()
        while True:
            status, headers = await _read_head(self.reader)
            if status >= 200 or status == 101:
                break
        return Response(self, status, headers, bodiless=method == "HEAD" or status in (204, 304))

    def usable(self, now: float) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing() or now - self.idle_since > _IDLE_SECONDS)

    def drop(self) -> None:
        """Without TLS's farewell, which a server may never answer: lengths tell what is complete."""
        self.writer.transport.abort()

    def done(self, *, reusable: bool) -> None:
        self._pool.give_back(self, reusable=reusable)


class HttpPool:
    """Connections to one server.

    ``server`` is its URL (a path in it prefixes every request), ``tls`` the context for https,
    ``server_name`` what its certificate must say where that is not the host, ``proxy`` an http:// proxy.
    """

    def __init__(
        self, server: str, tls: ssl.SSLContext | None = None, server_name: str = "", proxy: str = ""
    ) -> None:
        self.url = urlsplit(server)
        self.prefix = self.url.path.rstrip("/")
        self._tls = tls if self.url.scheme == "https" else None
        self._server_name = server_name or (self.url.hostname or "")
        self._proxy = urlsplit(proxy) if proxy else None
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Response:
        """Send and wait for the answer's head. ``target`` is path and query, already escaped.

        A GET that finds its kept connection closed by the server is sent again on a new one.
        Raises HttpError.
        """
        head = _request_head(method, self.prefix + target, self.url.netloc.rpartition("@")[2], headers, body)
        while True:
            connection = self._take_idle() or await self._connect()
            self._busy.add(connection)
            try:
                return await connection.exchange(method, head, body)
            except (OSError, EOFError, ValueError) as e:
                self.give_back(connection, reusable=False)
                if connection.used and method == "GET" and not isinstance(e, ValueError):
                    continue
                raise HttpError(_words(e), protocol=isinstance(e, ValueError)) from e
            except BaseException:
                self.give_back(connection, reusable=False)
                raise

    def give_back(self, connection: _Connection, *, reusable: bool) -> None:
        """Keep a connection for the next request, or close it. Idempotent."""
        if connection not in self._busy:
            return
        self._busy.discard(connection)
        if reusable and len(self._idle) < _IDLE_CONNECTIONS:
            connection.idle_since, connection.used = asyncio.get_running_loop().time(), True
            self._idle.append(connection)
        else:
            connection.drop()

    async def close(self) -> None:
        """Close every connection, those in use included."""
        everything = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for connection in everything:
            connection.drop()
        for connection in everything:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.writer.wait_closed()

    def _take_idle(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable(now):
                return connection
            connection.drop()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await self._open()
        except TimeoutError as e:
            raise HttpError(f"no connection within {_CONNECT_SECONDS:.0f} s") from e
        except (OSError, EOFError, ValueError) as e:
            raise HttpError(_words(e)) from e
        _keep_alive(writer)
        return _Connection(self, reader, writer)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = _address(self.url)
        if self._proxy is None:
            return await asyncio.open_connection(
                host,
                port,
                ssl=self._tls,
                server_hostname=self._server_name if self._tls else None,
                limit=256 * 1024,
                happy_eyeballs_delay=0.25,
            )
        reader, writer = await asyncio.open_connection(*_address(self._proxy), limit=256 * 1024)
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        writer.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        status, _ = await _read_head(reader)
        if status != 200:
            writer.close()
            raise HttpError(f"proxy {self._proxy.netloc} answered {status} to CONNECT {where}")
        if self._tls:
            await writer.start_tls(self._tls, server_hostname=self._server_name)
        return reader, writer


def _address(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _request_head(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers. Raises ValueError on what is not HTTP, EOFError when cut."""
    line = await reader.readline()
    if not line:
        raise EOFError("connection closed by the server")
    version, _, rest = line.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not an HTTP/1 answer: {line[:40]!r}")
    status = int(rest[:3])
    headers: dict[str, str] = {}
    size = len(line)
    while line := await reader.readline():
        size += len(line)
        if size > _HEAD_LIMIT:
            raise ValueError("answer with an endless header")
        if not line.strip():
            return status, headers
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise ValueError(f"not a header: {line[:40]!r}")
        headers[name.strip().lower()] = value.strip()
    raise EOFError("connection closed in the middle of the header")


async def _chunk_size(reader: asyncio.StreamReader) -> int:
    if not (line := await reader.readline()):
        raise EOFError("connection closed by the server")
    return int(line.split(b";")[0], 16)


async def _expect_newline(reader: asyncio.StreamReader) -> None:
    if await reader.readexactly(2) != b"\r\n":
        raise ValueError("chunk does not end where it said")


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Notice within about 40 s that the peer of a silent connection is gone."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, asyncio.IncompleteReadError):
        return "connection closed by the server"
    return str(error) or type(error).__name__
