"""What a pod can reach of its node's agent: nothing."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, call_shim, node, pod, pod_namespace

from towpath.kernel.netns import run_in

pytestmark = pytest.mark.kernel

HEALTH, OTHER, SECONDS = 9109, 9110, 60
NODE4, NODE6 = "172.30.0.11", "fd00:172:30::11"


@pytest.fixture
def n1(tmp_path: Path) -> Iterator[AgentNode]:
    with agent_node(tmp_path) as made:
        yield made


def connects(netns: int, address: str, port: int) -> str:
    """From inside: "yes", or the kernel's word for no."""

    def ask() -> str:
        try:
            socket.create_connection((address, port), timeout=SECONDS).close()
        except OSError as refused:
            return type(refused).__name__
        return "yes"

    return run_in(netns, ask)


@pytest.mark.parametrize("node_address", [NODE4, NODE6])
async def test_a_pod_reaches_its_node_and_not_the_agent_there(n1: AgentNode, node_address: str) -> None:
    """On the node itself the same port answers; from the pod, another port of the same address does."""
    api = await n1.start_api()
    api.put(NODES, node(1))
    api.put(PODS, pod("a"))
    n1.start()
    family = socket.AF_INET6 if ":" in node_address else socket.AF_INET
    with pod_namespace() as path:
        code, result = await call_shim(n1, "ADD", "a", path)
        assert code == 0, result
        await n1.ready()
        netns = os.open(path, os.O_RDONLY)
        other = run_in(n1.netns, lambda: socket.create_server((node_address, OTHER), family=family))
        try:
            assert connects(n1.netns, "127.0.0.1", HEALTH) == "yes"
            assert connects(netns, node_address, OTHER) == "yes"
            assert connects(netns, node_address, HEALTH) == "ConnectionRefusedError"
            assert connects(netns, "127.0.0.1", HEALTH) == "ConnectionRefusedError"
        finally:
            other.close()
            os.close(netns)
    n1.stop(signal.SIGKILL)
    await api.down()
