"""What others do to a node's network while the agent runs, and how fast it is undone."""

import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agent_node import NODES, AgentNode, agent_node, node

from towpath.kernel.nft_owner import ownable
from towpath.kube.fake import FakeApiServer

pytestmark = pytest.mark.kernel


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


@pytest.fixture
async def api(n1: AgentNode) -> AsyncIterator[FakeApiServer]:
    server = await n1.start_api()
    server.put(NODES, node(1))
    server.put(NODES, node(2, peer=True))
    yield server
    if n1.process is not None:
        n1.stop(signal.SIGKILL)
    await server.down()


def owner(n1: AgentNode) -> str:
    found = n1.kernel.observe((), "towpath").nft
    return found.owner if found is not None else "absent"


async def test_the_table_is_owned_outlives_the_agent_and_is_owned_by_the_next(
    n1: AgentNode, api: FakeApiServer
) -> None:
    if not ownable():
        pytest.skip("this kernel has no owners that leave their table (before 6.9)")
    process = n1.start()
    await n1.ready()
    wanted = n1.observe().nft
    handle = _handle(n1)
    assert owner(n1) == "foreign"
    assert n1.run("nft", "flush", "ruleset").returncode == 0
    assert n1.observe().nft == wanted
    listing = n1.run("nft", "list", "table", "inet", "towpath").stdout
    assert f"# progname {Path(f'/proc/{process.pid}/comm').read_text().strip()}" in listing
    n1.stop(signal.SIGKILL)
    assert owner(n1) == "kept"
    n1.start(own_table=False)  # another release, say: it takes over what it cannot own
    await n1.ready()
    assert owner(n1) == "kept"
    n1.stop()
    n1.start()
    await n1.ready()
    await n1.until(lambda: owner(n1) == "foreign")
    assert n1.observe().nft == wanted
    assert _handle(n1) == handle, "the very same table all the while"
    n1.stop()
    assert n1.run("nft", "delete", "table", "inet", "towpath").returncode == 0, "as an uninstaller would"


def _handle(n1: AgentNode) -> str:
    found = re.search(r"# handle (\d+)", n1.run("nft", "-a", "list", "table", "inet", "towpath").stdout)
    assert found is not None
    return found[1]
