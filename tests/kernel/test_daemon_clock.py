"""The wall clock jumps, ten years forward and ten back, under the real agent: nothing comes of it.

What the agent measures it measures by the kernel's clocks since boot; the wall clock is for people alone (log
lines, stamps of conditions). ``wall_clock.c`` makes the agent's wrong, and no other program's.
"""

import re
import signal
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from towpath.kube.fake import FakeApiServer

pytestmark = pytest.mark.kernel
TEN_YEARS = 10 * 365 * 86400
SOURCE = Path(__file__).with_name("wall_clock.c")


class WallClock:
    """The agent's, wrong by ``seconds``."""

    def __init__(self, folder: Path) -> None:
        self.library, self.file = folder / "wall_clock.so", folder / "wall_clock"
        self.jump(0)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self.library), str(SOURCE)], check=True)

    def jump(self, seconds: int) -> None:
        """In place: the running agent has the file mapped."""
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    made = WallClock(tmp_path)
    monkeypatch.setenv("WALL_CLOCK", str(made.file))
    return made


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


@pytest.fixture
async def api(n1: AgentNode) -> AsyncIterator[FakeApiServer]:
    server = await n1.start_api()
    for number in (1, 2):
        server.put(NODES, node(number, peer=number == 2))
    for name in ("a", "before", "between", "after"):
        server.put(PODS, pod(name))
    yield server
    if n1.process is not None:
        n1.stop(signal.SIGKILL)
    await server.down()


async def test_leases_repair_and_restarts_do_not_go_by_the_wall_clock(
    n1: AgentNode, api: FakeApiServer, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        with monkeypatch.context() as here:
            here.setenv("LD_PRELOAD", str(clock.library))
            n1.start()

    start()
    with pod_namespace() as netns:
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        await n1.ready()
        given = [await passing(n1, "before")]
        whole = n1.observe()
        for seconds in (TEN_YEARS, -TEN_YEARS):
            clock.jump(seconds)
            await mended(n1, whole)
            given.append(await passing(n1, "between"))
            n1.stop(signal.SIGKILL)
            start()
            await n1.ready()
            assert n1.observe() == whole
            given.append(await passing(n1, "after"))
            assert (await call_shim(n1, "CHECK", "a", netns, prevResult=result))[0] == 0
        # Released moments ago, whatever the wall clock says: none is given again while there are more.
        everything = [address for addresses in given for address in addresses]
        assert len(set(everything)) == len(everything)
        assert n1.observe() == whole
    assert years_apart(n1) >= 19, "the agent's wall clock did not jump"


async def passing(n1: AgentNode, name: str) -> list[str]:
    """The addresses of a pod that comes and goes."""
    with pod_namespace() as netns:
        code, result = await call_shim(n1, "ADD", name, netns)
        assert code == 0, result
        assert (await call_shim(n1, "DEL", name, netns))[0] == 0
    return [entry["address"] for entry in result["ips"]]


async def mended(n1: AgentNode, whole: Any) -> None:
    """What others damage is put right."""
    n1.ip("route del 10.42.2.0/24")
    n1.ip("link set flannel-v6.1 down")
    await n1.until(lambda: n1.observe() == whole)


def years_apart(n1: AgentNode) -> int:
    """Between the earliest and the latest line of the agent's log."""
    years = sorted(int(year) for year in re.findall(r'"(\d{4})-\d\d-\d\dT', n1.log.read_text()))
    return years[-1] - years[0] if years else 0
