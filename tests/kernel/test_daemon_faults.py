"""Faults that last: a full set, an API server that is away while the agent is restarted, a PID used twice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from towpath.desired.names import host_ifname
from towpath.kube.fake import FakeApiServer

pytestmark = pytest.mark.kernel


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


@pytest.fixture
async def api(n1: AgentNode) -> AsyncIterator[FakeApiServer]:
    server = await n1.start_api()
    for number in (1, 2):
        server.put(NODES, node(number, peer=number == 2))
    for name in ("a", "b"):
        server.put(PODS, pod(name))
    yield server
    if n1.process is not None:
        n1.stop(signal.SIGKILL)
    await server.down()


async def test_a_full_set_costs_the_new_pod_and_nobody_else(n1: AgentNode, api: FakeApiServer) -> None:
    """Somebody made the table before us, with a set that holds one pod."""
    full = "add table inet towpath; add set inet towpath pod_src4 { type ifname . ipv4_addr; size 1; }"
    assert n1.run("nft", full).returncode == 0
    n1.start(own_table=False)
    await n1.ready()
    with pod_namespace() as first, pod_namespace() as second:
        code, result = await call_shim(n1, "ADD", "a", first)
        assert code == 0, result
        before = n1.observe()
        code, error = await call_shim(n1, "ADD", "b", second)
        assert code == 1
        assert "full" in str(error), error
        assert n1.observe() == before, "nothing of it is left"
        assert n1.get("/readyz")[0] == 200
        assert (await call_shim(n1, "CHECK", "a", first))[0] in (0, 1)
        n1.run("nft", "delete", "table", "inet", "towpath")
        await n1.until(lambda: n1.observe().nft == before.nft)
        code, result = await call_shim(n1, "ADD", "b", second)
        assert code == 0, result


async def test_a_table_that_cannot_be_filled_degrades_and_is_tried_again(
    n1: AgentNode, api: FakeApiServer
) -> None:
    full = "add table inet towpath; add set inet towpath pod_src4 { type ifname . ipv4_addr; size 1; }"
    n1.start(own_table=False)
    with pod_namespace() as first, pod_namespace() as second:
        for name, netns in (("a", first), ("b", second)):
            code, result = await call_shim(n1, "ADD", name, netns)
            assert code == 0, result
        whole = n1.observe()
        n1.stop()
        n1.run("nft", "delete", "table", "inet", "towpath")
        assert n1.run("nft", full).returncode == 0
        n1.start(own_table=False)
        await n1.until(lambda: "[-]kernel: nft" in n1.get("/readyz")[1])
        assert n1.get("/healthz")[0] == 200
        assert n1.observe().routes == whole.routes, "all else is done"
        await asyncio.sleep(1)
        assert n1.process is not None
        assert n1.process.poll() is None
        n1.run("nft", "delete", "table", "inet", "towpath")
        await n1.ready()
        assert n1.observe() == whole


async def test_restarts_while_the_api_is_away_keep_everything(n1: AgentNode, api: FakeApiServer) -> None:
    n1.start()
    with pod_namespace() as netns:
        code, result = await call_shim(n1, "ADD", "a", netns)
        assert code == 0, result
        await n1.ready()
        before = n1.observe()
        await api.down()
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            n1.stop(number)
            n1.start(resync_seconds=1)
            await n1.until(lambda: "[-]api" in n1.get("/readyz")[1])
            await asyncio.sleep(1.5)
            assert n1.observe() == before
        code, error = await call_shim(n1, "STATUS", "", None)
        assert code == 1, "no pod is sent to a node that does not know what is allowed"
        assert error["code"] == 50
        await api.up()
        await n1.ready()
        assert n1.observe() == before
        assert (await call_shim(n1, "DEL", "a", netns))[0] == 0
        assert host_ifname("default", "a") not in n1.observe().links


async def test_another_process_with_the_old_agents_pid_is_no_agent(n1: AgentNode, api: FakeApiServer) -> None:
    """The lock is the kernel's and goes with its holder; the number in the file is for people."""
    state = n1.folder / "state"
    state.mkdir()
    (state / "agent.lock").write_text(f"{os.getpid()}\n")
    n1.start()
    await n1.ready()
