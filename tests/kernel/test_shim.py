"""The real executable against the real server: what the runtime sees, and what reaches the agent."""

import ast
import asyncio
import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
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

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim as the sources have it, compiled with the flags users' wheels are compiled with."""
    tree = ast.parse((ROOT / "hatch_build.py").read_text())
    [flags] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLAGS"
    ]
    path = tmp_path_factory.mktemp("shim") / "towpath-cni"
    subprocess.run(["cc", *flags, "-o", str(path), str(ROOT / "shim/towpath-cni.c")], check=True)
    return path


@dataclass
class Shim:
    """An installed shim whose agent is to be found on ``socket``."""

    path: Path
    socket: Path

    def environment(self, command: str, **env: str) -> dict[str, str]:
        return {"CNI_COMMAND": command, "CNI_PATH": str(self.path.parent), **env}

    async def run(self, command: str, config: object = CONFIG, **env: str) -> tuple[int, bytes, bytes]:
        process = await self.start(command, **env)
        stdout, stderr = await process.communicate(
            config if isinstance(config, bytes) else json.dumps(config).encode()
        )
        assert process.returncode is not None
        return process.returncode, stdout, stderr

    async def start(self, command: str, **env: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self.path, env=self.environment(command, **env), stdin=pipe, stdout=pipe, stderr=pipe
        )


@pytest.fixture
def shim(executable: Path, tmp_path: Path) -> Shim:
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy2(executable, folder / "towpath-cni")
    (folder / "towpath-cni.socket").write_text(f"{tmp_path}/cni.sock\n")
    return Shim(folder / "towpath-cni", tmp_path / "cni.sock")


@dataclass
class Recorder:
    """A handler that does what the test says and remembers what it was asked."""

    calls: list[tuple[str, Request]] = field(default_factory=list)
    add_does: object = None

    async def add(self, r: Request) -> Result:
        self.calls.append(("add", r))
        if callable(self.add_does):
            await self.add_does(r)
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


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    """A network namespace of its own, bound to a file as runtimes do; it holds the dummy device ``pod0``."""
    path = tmp_path / "netns"
    path.touch()
    libc = ctypes.CDLL(None, use_errno=True)

    def make() -> None:
        assert libc.unshare(0x40000000) == 0
        subprocess.run(["ip", "link", "add", "pod0", "type", "veth", "peer", "name", "pod1"], check=True)
        subprocess.run(
            ["mount", "--bind", f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net", path],
            check=True,
        )

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    yield path
    subprocess.run(["umount", path], check=True)


def pod(netns: Path | str) -> dict[str, str]:
    return {"CNI_CONTAINERID": "c1", "CNI_NETNS": str(netns), "CNI_IFNAME": "eth0"}


async def test_add_reaches_the_handler_and_its_result_the_caller(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    status, stdout, _ = await shim.run("ADD", **pod(netns), CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=p;X=y")
    assert status == 0
    assert json.loads(stdout)["ips"] == [{"interface": 0, "address": "10.42.0.2/32"}]
    [(_, request)] = handler.calls
    assert (request.container_id, request.ifname, request.netns) == ("c1", "eth0", str(netns))
    assert request.args["K8S_POD_NAME"] == "p"
    assert len(request.request_id) == 32
