"""The agent's process is killed (SIGKILL) while a delegate runs: the first, one in the middle, the last."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from towpath.agent.network_definitions import DEFINITIONS
from towpath.multinet.annotation import NETWORKS
from towpath.multinet.journal import FILE, read_rows

pytestmark = pytest.mark.kernel

MOST = 5
NAMES = [f"net{number}" for number in range(1, MOST + 1)]
# Writes down each call, makes its interface or unmakes it, and kills the agent when it is told to.
PLUGIN = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND $CNI_IFNAME" >> $0.log
if [ "$(cat $0.kills 2>/dev/null)" = "$CNI_COMMAND $CNI_IFNAME" ]; then
    rm $0.kills
    kill -9 $(cat $0.agent)
fi
[ $CNI_COMMAND = DEL ] && rm -f $0.$CNI_CONTAINERID.$CNI_IFNAME
[ $CNI_COMMAND = ADD ] && touch $0.$CNI_CONTAINERID.$CNI_IFNAME
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.5.0.5/24"}]}'
exit 0
"""


def attached(plugin: Path) -> list[str]:
    """What the plugin has made and not unmade."""
    return sorted(path.name.rpartition(".")[2] for path in plugin.parent.glob(f"{plugin.name}.c-*"))


async def begin(n1: AgentNode, plugin: Path) -> None:
    process = n1.start(network_types=["odd"], resync_seconds=1)
    Path(f"{plugin}.agent").write_text(str(process.pid))
    await n1.ready()


async def killed_at(n1: AgentNode, plugin: Path, at: str, command: str, netns: Path) -> Any:
    """The call, during which the agent is killed and another one comes; the runtime's answer."""
    Path(f"{plugin}.kills").write_text(at)
    calling = asyncio.create_task(call_shim(n1, command, "p", netns))
    assert n1.process is not None
    await asyncio.to_thread(n1.process.wait, 120)
    n1.process = None
    await begin(n1, plugin)
    status, answer = await calling
    assert status == 0, answer
    return answer


async def test_killed_among_five_delegates(tmp_path: Path) -> None:
    with agent_node(tmp_path) as n1, pod_namespace() as netns:
        (tmp_path / "state").mkdir()
        api = await n1.start_api()
        api.put(NODES, node(1))
        asked = pod("p")
        asked["metadata"]["annotations"] = {NETWORKS: ",".join(["odd"] * MOST)}
        api.put(PODS, asked)
        config = json.dumps({"cniVersion": "1.0.0", "type": "odd"})
        meta = {"name": "odd", "namespace": "default"}
        api.put(DEFINITIONS, {"metadata": meta, "spec": {"config": config}})
        plugin = tmp_path / "bin" / "odd"
        await call_shim_once(n1)
        plugin.write_text(PLUGIN)
        plugin.chmod(0o755)
        await begin(n1, plugin)
        for name in (NAMES[0], NAMES[2], NAMES[-1]):
            await killed_at(n1, plugin, f"ADD {name}", "ADD", netns)
            assert attached(plugin) == NAMES
            rows = read_rows(tmp_path / "state" / FILE)
            assert sorted(row.call.ifname for row in rows if row.done) == NAMES
            await killed_at(n1, plugin, f"DEL {name}", "DEL", netns)
            assert attached(plugin) == []
            assert read_rows(tmp_path / "state" / FILE) == ()
        calls = Path(f"{plugin}.log").read_text().splitlines()
        for name in NAMES:
            assert [call for call in calls if call.endswith(name)][-1] == f"DEL {name}"
        n1.stop()
        await api.down()


async def call_shim_once(n1: AgentNode) -> None:
    """The shim is installed by its first call; this one needs no agent."""
    status, _ = await call_shim(n1, "VERSION", "p", None)
    assert status == 0
