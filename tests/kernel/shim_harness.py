"""The real executable and the real server, with a handler and a pod namespace to try them on."""

import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path

import pytest

from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.cni.result import Interface, IPConfig, Result
from towpath.cni.server import Server, serve

ROOT = Path(__file__).parents[2]
RESULT = Result(
    interfaces=(Interface(name="eth0", mac="02:00:00:00:00:01", sandbox="/run/netns/x"),),
    ips=(IPConfig(address=ip_interface("10.42.0.2/32"), interface=0),),
)
CONFIG = {"cniVersion": "1.1.0", "name": "net", "type": "towpath-cni"}
CLONE_NEWNET = 0x40000000
EMPTY: Mapping[str, str] = {}


def compile_shim(path: Path, *flags: str) -> Path:
    """The shim as the sources have it, compiled as users' wheels have it compiled."""
    subprocess.run([ROOT / "shim/build.sh", path, *flags], check=True)
    return path


@dataclass
class Shim:
    """An installed shim, told by the file beside it that its agent is on ``socket``."""

    path: Path
    socket: Path

    async def start(
        self,
        command: str,
        env: Mapping[str, str] = EMPTY,
        config: object = CONFIG,
        user: int | None = None,
    ) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self.path,
            env={"CNI_COMMAND": command, "CNI_PATH": str(self.path.parent), **env},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            user=user,
        )
        assert process.stdin is not None
        process.stdin.write(config if isinstance(config, bytes) else json.dumps(config).encode())
        process.stdin.close()
        return process

    async def run(
        self,
        command: str,
        env: Mapping[str, str] = EMPTY,
        config: object = CONFIG,
        user: int | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Exit status, stdout, stderr."""
        return await finish(await self.start(command, env, config, user))

    async def refused(
        self, command: str, env: Mapping[str, str] = EMPTY, config: object = CONFIG
    ) -> tuple[int, str]:
        """Code and text of the error it must end with."""
        status, stdout, _ = await self.run(command, env, config)
        assert status == 1, stdout
        error = json.loads(stdout)
        return error["code"], f"{error['msg']}: {error['details']}"


async def finish(process: asyncio.subprocess.Process) -> tuple[int, bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return await process.wait(), stdout, stderr


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is shipped: with patience for a minute."""
    return compile_shim(tmp_path_factory.mktemp("shim") / "towpath-cni")


@pytest.fixture(scope="session")
def hasty_executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waits 1.2 seconds where the one that is shipped waits sixty."""
    return compile_shim(tmp_path_factory.mktemp("hasty") / "towpath-cni", "-DPATIENCE_MS=1200")


@pytest.fixture
def shim(executable: Path, tmp_path: Path) -> Shim:
    return installed(executable, tmp_path)


@pytest.fixture
def hasty(shim: Shim, hasty_executable: Path) -> Shim:
    """Instead of the patient one, in the same place."""
    shutil.copy2(hasty_executable, shim.path)
    return shim


def installed(executable: Path, tmp_path: Path) -> Shim:
    """A shim in a folder of its own, and the file that says where its agent is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy2(executable, folder / "towpath-cni")
    (folder / "towpath-cni.socket").write_text(f"{tmp_path}/cni.sock\n")
    return Shim(folder / "towpath-cni", tmp_path / "cni.sock")


@dataclass
class Recorder:
    """A handler that does what the test says and remembers what it was asked."""

    calls: list[tuple[str, Request]] = field(default_factory=list)
    on_add: Callable[[Request], Awaitable[None]] | None = None

    async def add(self, r: Request) -> Result:
        self.calls.append(("add", r))
        if self.on_add is not None:
            await self.on_add(r)
        return RESULT

    async def delete(self, r: Request) -> None:
        self.calls.append(("delete", r))

    async def check(self, r: Request) -> None:
        self.calls.append(("check", r))
        raise CniError(ErrorCode.UNKNOWN_CONTAINER, "eth0 is gone", "10.42.0.2")

    async def status(self, r: Request) -> None:
        self.calls.append(("status", r))

    async def gc(self, r: Request) -> None:
        self.calls.append(("gc", r))
        raise ZeroDivisionError("a defect")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def handler() -> Recorder:
    return Recorder()


@pytest.fixture
async def server(shim: Shim, handler: Recorder) -> AsyncIterator[Server]:
    server = await serve(shim.socket, handler)
    yield server
    await server.close()


def enter(namespace: int, do: Callable[[], None]) -> None:
    """Run ``do`` in a namespace, or in a new one (-1), on a thread that is thrown away."""
    libc = ctypes.CDLL(None, use_errno=True)
    failures: list[BaseException] = []

    def body() -> None:
        try:
            status = libc.unshare(CLONE_NEWNET) if namespace < 0 else libc.setns(namespace, CLONE_NEWNET)
            assert status == 0, os.strerror(ctypes.get_errno())
            do()
        except BaseException as err:
            failures.append(err)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    """A network namespace bound to a file, as runtimes make them; ``pod0`` is a device in it."""
    path = tmp_path / "netns"
    path.touch()

    def fill() -> None:
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        subprocess.run(["mount", "--bind", own.replace("self", str(os.getpid())), path], check=True)
        subprocess.run(["ip", "link", "add", "pod0", "type", "veth", "peer", "name", "pod1"], check=True)

    enter(-1, fill)
    yield path
    subprocess.run(["umount", path], check=True)


def attachment(netns: Path | str, container_id: str = "c1") -> dict[str, str]:
    return {"CNI_CONTAINERID": container_id, "CNI_NETNS": str(netns), "CNI_IFNAME": "eth0"}
