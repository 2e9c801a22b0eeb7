"""What a lab tells of itself when a test failed (``cluster_state``)."""

import os
import subprocess
from collections.abc import Iterable, Iterator

from cluster_state import Memory, agents, items, tail, unwell
from towpath.lab.client import LabClient, result_of
from towpath.lab.rundir import LOG

MEMORY = Memory()
_PATIENCE = 20.0  # seconds for one answer: a lab that is stuck says nothing, and the run goes on


def keep(test: str, labs: Iterable[str], memory: Memory = MEMORY) -> None:
    """Look at the labs that run, unless a test failed before this one."""
    memory.keep(test, ((f"lab {name}", _told(name)) for name in labs))


def _told(name: str) -> Iterator[str]:
    client = LabClient(name)
    control_plane = _component(client, "apiserver")  # first: it says so if no such lab runs

    def kubectl(*arguments: str) -> str:
        command = ["kubectl", f"--request-timeout={_PATIENCE:.0f}s", *arguments]
        environment = {**os.environ, "KUBECONFIG": client.kubeconfig}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PATIENCE * 2, check=False
        )
        return done.stdout or done.stderr

    yield from unwell(kubectl)
    yield from tail("control plane", control_plane)
    for node in items(kubectl, "nodes"):
        name = node["metadata"]["name"]
        yield from tail(f"kubelet of {name}", _component(client, "kubelet", name))
    yield from agents(kubectl)
    yield from tail("lab", (client.folder / LOG).read_text(errors="replace"))


def _component(client: LabClient, component: str, node: str = "") -> str:
    with client.open("component-logs", component=component, node=node) as connection:
        connection.settimeout(_PATIENCE)
        return str(result_of(connection))
