"""The agent killed between any two steps of ADD and of DEL, with the real shim asking and the real kernel."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from attach_node import kernel_leftovers, remove_links
from shim_harness import Shim, compile_shim, finish, netns

from patience import PATIENT

__all__ = ["netns"]

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "towpath-cni",
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 10**7, "egressRate": 10**7},
    },
}
MOST_STEPS = 80


class Nursery:
    """Agents, one after the other, in one state folder."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self.pid = 0

    async def start(self, die_at: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{die_at}\n".encode())
        word, _, rest = (await self.line()).partition(" ")
        assert word == "READY", (word, rest)
        self.pid = int(rest)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._lines.put_nowait(line.decode().strip())

    async def line(self) -> str:
        """The next thing an agent says: that it is ready, or before what it dies."""
        async with asyncio.timeout(PATIENT):
            return await self._lines.get()

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # the next agent waits for it


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[Nursery]:
    folder = tmp_path / "state"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("killed_agent.py")),
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{ROOT / 'src'}"},
    )
    nursery = Nursery(process)
    yield nursery
    await nursery.close()
    remove_links()


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shim that waits for the next agent as long as a loaded machine may take to start it."""
    return compile_shim(tmp_path_factory.mktemp("shim") / "towpath-cni", "-DPATIENCE_MS=120000")


def installed(executable: Path, folder: Path) -> Shim:
    folder.mkdir()
    shutil.copy2(executable, folder / "towpath-cni")
    (folder / "towpath-cni.socket").write_text(f"{folder.parent}/state/cni.sock\n")
    return Shim(folder / "towpath-cni", folder.parent / "state/cni.sock")


def environment(netns: Path) -> dict[str, str]:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a"
    return {"CNI_CONTAINERID": "c1", "CNI_NETNS": str(netns), "CNI_IFNAME": "eth0", "CNI_ARGS": args}


def leftovers(folder: Path, pod: int) -> list[str]:
    own = ("pod: pod0", "pod: pod1")  # the fixture's devices
    found = [x for x in kernel_leftovers({"pod": pod}) if x not in own]
    with sqlite3.connect(f"file:{folder}/leases.db?mode=ro", uri=True) as db:
        found += [f"lease {row[0]}" for row in db.execute("SELECT address FROM leases")]
    db.close()
    usual = {"leases.db", "leases.db-wal", "leases.db-shm", "cni.sock"}
    return found + [p.name for p in folder.iterdir() if p.name not in usual]


async def first_of(agents: Nursery, call: asyncio.subprocess.Process) -> str:
    """What the agent was about to do when it died, or nothing if the call ended first."""
    ended, died = asyncio.create_task(call.wait()), asyncio.create_task(agents.line())
    await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, died):
        if not task.done():
            task.cancel()
    return died.result() if died.done() and not died.cancelled() else ""


@pytest.fixture
def pod(netns: Path) -> Iterator[int]:
    fd = os.open(netns, os.O_RDONLY)
    yield fd
    os.close(fd)


async def test_an_add_survives_its_agent_at_every_step(
    agents: Nursery, executable: Path, netns: Path, pod: int, tmp_path: Path
) -> None:
    """The shim tries again: the next agent undoes, redoes and answers, and the pod has one address."""
    shim, env = installed(executable, tmp_path / "bin"), environment(netns)
    steps = []
    for number in range(1, MOST_STEPS):
        await agents.start(number)
        call = await shim.start("ADD", env, CONFIG)
        step = await first_of(agents, call)
        if step:
            steps.append(step)
        else:
            agents.kill()
        await agents.start(0)
        status, stdout, _ = await finish(call)
        assert status == 0, (steps[-1], stdout)
        checked = {**CONFIG, "prevResult": json.loads(stdout)}
        status, stdout, _ = await shim.run("CHECK", env, checked)
        assert status == 0, (steps[-1], stdout)
        status, stdout, _ = await shim.run("DEL", env, CONFIG)
        assert status == 0, (steps[-1], stdout)
        assert leftovers(tmp_path / "state", pod) == [], steps[-1]
        agents.kill()
        if not step:
            break
    else:
        raise AssertionError("ADD has no end")
    assert len(steps) > 25 and {"DEAD commit", "DEAD after commit", "DEAD answer"} <= set(steps)


async def test_del_undoes_what_an_agent_left_at_any_step_of_add(
    agents: Nursery, executable: Path, netns: Path, pod: int, tmp_path: Path
) -> None:
    """The runtime gives up as well, and sends DEL to the next agent."""
    shim, env = installed(executable, tmp_path / "bin"), environment(netns)
    for number in range(1, MOST_STEPS):
        await agents.start(number)
        call = await shim.start("ADD", env, CONFIG)
        step = await first_of(agents, call)
        if not step:
            break
        call.kill()
        await finish(call)
        await agents.start(0)
        status, stdout, _ = await shim.run("DEL", env, CONFIG)
        assert status == 0, (step, stdout)
        assert leftovers(tmp_path / "state", pod) == [], step
        agents.kill()
    assert number > 25


async def test_a_del_survives_its_agent_at_every_step(
    agents: Nursery, executable: Path, netns: Path, pod: int, tmp_path: Path
) -> None:
    shim, env = installed(executable, tmp_path / "bin"), environment(netns)
    steps: list[str] = []
    for number in range(1, MOST_STEPS):
        await agents.start(0)
        status, stdout, _ = await shim.run("ADD", env, CONFIG)
        assert status == 0, stdout
        agents.kill()
        await agents.start(number)
        call = await shim.start("DEL", env, CONFIG)
        step = await first_of(agents, call)
        if step:
            steps.append(step)
            await agents.start(0)
        status, stdout, _ = await finish(call)
        assert status == 0, (step, stdout)
        assert leftovers(tmp_path / "state", pod) == [], step
        agents.kill()
        if not step:
            break
    assert len(steps) >= 6
