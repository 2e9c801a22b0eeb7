"""The HTTP layer against servers that frame, split, cut and lie."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towpath.kube.http import HttpError, HttpPool

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str, None]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def answering(*pieces: bytes, pause: float = 0.0) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

    return script


async def body_of(*pieces: bytes, pause: float = 0.0) -> bytes:
    async with serving(answering(*pieces, pause=pause)) as url:
        pool = HttpPool(url)
        try:
            return await (await pool.request("GET", "/", {})).read()
        finally:
            await pool.close()


async def test_by_length_chunked_and_until_close() -> None:
    assert await body_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") == b"hello"
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n"
    )
    assert await body_of(chunked) == b"hello"

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    async with serving(close) as url:
        pool = HttpPool(url)
        assert await (await pool.request("GET", "/", {})).read() == b"hello"
        await pool.close()


async def test_interim_answers_are_skipped() -> None:
    text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
    assert await body_of(text) == b""


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
)
async def test_what_is_not_http_is_an_error(text: bytes) -> None:
    with pytest.raises(HttpError):
        await body_of(text)


async def test_cut_in_the_middle() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with serving(cut) as url:
        pool = HttpPool(url)
        with pytest.raises(HttpError, match="cut short"):
            await (await pool.request("GET", "/", {})).read()
        await pool.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.sets(st.integers(1, 90), max_size=8),
    chunks=st.lists(st.binary(min_size=1, max_size=9), max_size=5),
)
def test_however_it_is_split(cuts: set[int], chunks: list[bytes]) -> None:
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    text += b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in chunks) + b"0\r\n\r\n"
    places = [0, *sorted(c for c in cuts if c < len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    with asyncio.Runner() as runner:
        assert runner.run(body_of(*pieces)) == b"".join(chunks)


async def test_connections_are_kept_and_limited() -> None:
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(reader, writer)

    async with serving(count) as url:
        pool = HttpPool(url)
        for _ in range(5):
            assert await (await pool.request("GET", "/", {})).read() == b"ok"
        assert connections == 1
        first, second = await pool.request("GET", "/a", {}), await pool.request("GET", "/b", {})
        assert connections == 2
        assert [await first.read(), await second.read()] == [b"ok", b"ok"]
        third = await pool.request("GET", "/", {})
        third.close()  # unread: of no use for the next
        await (await pool.request("GET", "/", {})).read()
        await pool.close()


async def test_a_kept_connection_that_dies_costs_a_get_nothing_and_a_post_an_error() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")  # takes the second request, and leaves

    async with serving(once) as url:
        pool = HttpPool(url)
        for _ in range(3):
            assert await (await pool.request("GET", "/", {})).read() == b"ok"
        with pytest.raises(HttpError, match="closed by the server"):
            await pool.request("POST", "/", {}, b"x")  # may have been done: not for us to do twice
        await pool.close()


async def test_nobody_listens() -> None:
    async with serving(answering()) as url:
        pass
    with pytest.raises(HttpError):
        await HttpPool(url).request("GET", "/", {})


async def test_through_a_proxy_with_tls() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.internal").configure_cert(context)
    trust = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    asked = []

    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), context) as target:

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.split(b"\r\n")[0].decode())
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer), return_exceptions=True)

        async with serving(proxy) as proxy_url:
            pool = HttpPool("https://api.internal:6443", trust, proxy=proxy_url)
            assert await (await pool.request("GET", "/", {})).read() == b"ok"
            await pool.close()
    assert asked == ["CONNECT api.internal:6443 HTTP/1.1"]
