"""The server against callers that are no shim, against another on its socket, short of descriptors."""

import array
import asyncio
import os
import resource
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from patience import PATIENT, true
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.cni.server import Server, read_request, serve

CONFIG = b'{"name":"n","cniVersion":"1.1.0"}'


@dataclass
class Recorder:
    calls: list[str] = field(default_factory=list)
    on_status: Callable[[Request], Awaitable[None]] | None = None

    async def add(self, r: Request) -> Result:
        self.calls.append("add")
        return Result()

    async def delete(self, r: Request) -> None:
        self.calls.append("delete")

    async def check(self, r: Request) -> None:
        self.calls.append("check")

    async def status(self, r: Request) -> None:
        self.calls.append("status")
        if self.on_status is not None:
            await self.on_status(r)

    async def gc(self, r: Request) -> None:
        self.calls.append("gc")


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cni.sock"


@pytest.fixture
async def server(path: Path, handler: Recorder) -> AsyncIterator[Server]:
    server = await serve(path, handler)
    yield server
    await server.close()


POD = {"CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0"}


def request(command: str, env: Mapping[str, str] = POD, config: bytes = CONFIG) -> bytes:
    strings = [f"CNI_COMMAND={command}", *(f"{k}={v}" for k, v in env.items())]
    body = b"".join(s.encode() + b"\0" for s in strings) + b"\0" + config
    return b"TWP1" + struct.pack("<I", len(body)) + body


async def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(path))
    return sock


async def read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while part := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 16), 60):
            data += part
    except ConnectionResetError:
        pass  # the server closed before it had read everything
    sock.close()
    return data


async def ask(path: Path, data: bytes, fds: tuple[int, ...] = ()) -> bytes:
    """Everything the server says to ``data``."""
    sock = await connect(path)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)
    sock.shutdown(socket.SHUT_WR) if not data else None
    return await read_all(sock)


def error(answer: bytes) -> tuple[int, str]:
    assert answer[:5] == b"R\1\0\0\0", answer
    decoded = msgspec.json.decode(answer[9:])
    return decoded["code"], decoded["msg"]


SUCCESS = b"R" + bytes(8)
MANY = 300  # more than are served at once


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"TWP2\1\0\0\0\0",
        b"TWP1\xff\xff\xff\xff",
        b"TWP1\4\0\0\0abcd",
        b"TWP1\5\0\0\0abcd\0",
        b"TWP1\0\0\0\0",
        request("STATUS") + b"x",
    ],
)
async def test_what_is_no_request_is_hung_up_on(
    path: Path, server: Server, handler: Recorder, data: bytes
) -> None:
    assert await ask(path, data) == b""
    assert handler.calls == []
    assert await ask(path, request("STATUS")) == SUCCESS


async def test_a_request_in_pieces(path: Path, server: Server) -> None:
    sock = await connect(path)
    for byte in request("STATUS"):
        await asyncio.get_running_loop().sock_sendall(sock, bytes([byte]))
        await asyncio.sleep(0)
    assert await read_all(sock) == SUCCESS


async def test_descriptors_that_are_not_what_they_should_be(
    path: Path, server: Server, handler: Recorder
) -> None:
    read, write = os.pipe()
    before = descriptors()
    for fds in ((read,), (read, write), (read, write, read), (read,) * 5):
        assert await ask(path, request("ADD"), fds) == b""
    assert await ask(path, b"TWP1\xff\xff\xff\xff", (read, write)) == b""
    assert descriptors() == before
    assert handler.calls == []
    os.close(read)
    os.close(write)


async def test_a_caller_that_sends_half_and_leaves(path: Path, server: Server) -> None:
    before = descriptors()
    sock = await connect(path)
    sock.sendmsg([request("STATUS")[:20]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    await true(lambda: descriptors() > before)
    sock.close()
    await true(lambda: descriptors() == before)


async def test_errors_before_the_handler(path: Path, server: Server, handler: Recorder) -> None:
    old = b'{"name":"n","cniVersion":"0.3.1"}'
    for data, code in {
        request("VERSION"): 4,
        request("ADD", {}): 4,
        request("ADD", {"CNI_CONTAINERID": "c", "CNI_IFNAME": "a/b"}): 4,
        request("ADD", {**POD, "CNI_ARGS": "X=1"}): 4,
        request("ADD", config=b"{"): 6,
        request("ADD", config=b"{}"): 7,
        request("ADD", config=b'{"name":"n","cniVersion":"2.0.0"}'): 1,
        request("ADD"): 8,
        request("ADD", {**POD, "TOWPATH_NETNS_ERROR": "cannot open it"}): 8,
        request("CHECK", config=old): 1,
        request("STATUS", config=b'{"name":"n","cniVersion":"1.0.0"}'): 1,
        request("GC", config=old): 1,
        request("GC", config=b'{"name":"n","cniVersion":"1.1.0","cni.dev/attachments":7}'): 6,
    }.items():
        assert error(await ask(path, data))[0] == code, data
    assert handler.calls == []


async def test_del_forgives(path: Path, server: Server, handler: Recorder) -> None:
    config = b'{"name":"n","cniVersion":"0.3.1","mtu":"x","prevResult":{"ips":7}}'
    data = request("DEL", {**POD, "CNI_ARGS": ";;garbage"}, config)
    assert await ask(path, data) == SUCCESS
    assert handler.calls == ["delete"]


async def test_an_add_that_cannot_be_told_to_the_caller_is_undone(
    path: Path, server: Server, handler: Recorder
) -> None:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    data = request("ADD", config=b'{"name":"n","cniVersion":"0.2.0"}')
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    with netlink:
        answer = await ask(path, data, (namespace, netlink.fileno(), namespace))
    os.close(namespace)
    assert error(answer)[0] == 999
    assert handler.calls == ["add", "delete"]


async def test_socket_of_a_dead_agent_is_replaced_and_only_root_may_connect(
    path: Path, handler: Recorder
) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    server = await serve(path, handler)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["cni.sock"]
    assert await ask(path, request("STATUS")) == SUCCESS
    await server.close()
    assert list(path.parent.iterdir()) == []


async def test_one_agent_takes_over_from_another_without_a_gap(path: Path, handler: Recorder) -> None:
    old = await serve(path, Recorder())
    new = await serve(path, handler)
    assert await ask(path, request("STATUS")) == SUCCESS
    await old.close()
    assert await ask(path, request("STATUS")) == SUCCESS
    assert handler.calls == ["status", "status"]
    await new.close()


async def test_a_socket_that_cannot_be_made(tmp_path: Path, handler: Recorder) -> None:
    for path in (tmp_path / "absent" / "cni.sock", tmp_path / ("x" * 120)):
        with pytest.raises(OSError, match=r"No such file|too long"):
            await serve(path, handler)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        await serve(tmp_path / "folder", handler)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


async def test_close_finishes_what_is_under_way(path: Path, handler: Recorder) -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    async def wait(r: Request) -> None:
        entered.set()
        await proceed.wait()

    handler.on_status = wait
    server = await serve(path, handler)
    call = asyncio.create_task(ask(path, request("STATUS")))
    await entered.wait()
    closing = asyncio.create_task(server.close())
    await true(lambda: not path.exists())
    proceed.set()
    assert await call == SUCCESS
    await closing


async def test_more_calls_than_are_served_at_once_wait_their_turn(
    path: Path, server: Server, handler: Recorder
) -> None:
    async def briefly(r: Request) -> None:
        await asyncio.sleep(0.01)

    handler.on_status = briefly
    answers = await asyncio.gather(*(ask(path, request("STATUS")) for _ in range(400)))
    assert set(answers) == {SUCCESS}


async def test_plugins_that_call_us_are_served_however_many_wait_for_theirs(
    path: Path, server: Server, handler: Recorder
) -> None:
    called = 0
    everybody = asyncio.Event()

    async def plugin(r: Request) -> None:
        assert (await r.execute("/opt/cni/bin/bridge", {}, b"")).stdout == b"{}"

    async def shim() -> bytes:
        """Executes the plugin; that one calls its IPAM plugin once all are at it."""
        nonlocal called
        sock, loop = await connect(path), asyncio.get_running_loop()
        await loop.sock_sendall(sock, request("STATUS", {}))
        assert (await loop.sock_recv(sock, 1 << 16)).startswith(b"E")
        called += 1
        if called == MANY:
            everybody.set()
        await asyncio.wait_for(everybody.wait(), PATIENT)
        assert await ask(path, request("DEL")) == SUCCESS
        await loop.sock_sendall(sock, struct.pack("<cII", b"X", 0, 2) + b"{}" + bytes(4))
        return await read_all(sock)

    handler.on_status = plugin
    assert set(await asyncio.gather(*(shim() for _ in range(MANY)))) == {SUCCESS}


async def test_short_of_descriptors_callers_wait(path: Path, server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = await connect(path)
    await asyncio.get_running_loop().sock_sendall(waiting, request("STATUS"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
    try:
        await asyncio.sleep(0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await read_all(waiting) == SUCCESS


def test_a_request_carries_what_the_caller_said() -> None:
    env = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "c",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/x",
        "CNI_PATH": "/opt/cni/bin::/usr/lib/cni",
        "CNI_ARGS": "IP=10.0.0.5",
        "TOWPATH_REQUEST": "00ff",
    }
    got = read_request(env, CONFIG, None)
    assert (got.netns, got.path, got.request_id) == ("/run/netns/x", ("/opt/cni/bin", "/usr/lib/cni"), "00ff")
    assert [str(ip) for ip in got.config.runtime_config.ips] == ["10.0.0.5"]
    assert got.environment == {k: v for k, v in env.items() if k.startswith("CNI_")}


def test_an_error_says_all_it_knows() -> None:
    error = CniError(ErrorCode.TRY_LATER, "no address is free", "10.42.0.0/24")
    assert str(error) == "no address is free: 10.42.0.0/24"
    assert msgspec.json.decode(error.encode("0.4.0")) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "no address is free",
        "details": "10.42.0.0/24",
    }
