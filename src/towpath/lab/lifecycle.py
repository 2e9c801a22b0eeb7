"""Verbs about processes: ps, down, kill-agent, reboot, api-down, api-up."""

import signal
import time
from typing import Any

from towpath.lab import manifests
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.orders import Order, ask, node_process
from towpath.lab.rootfs import STATE
from towpath.lab.rundir import LabError
from towpath.lab.runtime_api import Container, List, RuntimeRefused, Sandbox, Signal, call, connect
from towpath.lab.topology import internal_ips


def listed(node: str) -> tuple[list[Sandbox], list[Container]]:
    """What runs on a node, from its runtime. Raises LabError when the node does not answer."""
    try:
        with connect(STATE / "nodes" / node / "runtime.sock") as connection:
            answer = call(connection, List())
    except (OSError, RuntimeRefused) as failed:
        raise LabError(f"node {node} does not answer: {failed}") from failed
    return answer.sandboxes, answer.containers


def agents(containers: list[Container]) -> list[Container]:
    """Running containers of the Towpath agent."""
    return [
        c
        for c in containers
        if c.pid and c.labels.get("owner") == f"{manifests.NAMESPACE}/{manifests.DAEMONSET}"
    ]


def ps(conversation: Conversation) -> dict[str, Any]:
    """Nodes with their processes."""
    report = ask(Order(op="list"))
    now = time.time()
    rows = []
    for process in report.nodes:
        try:
            sandboxes, containers = listed(process.name)
        except LabError:
            sandboxes, containers = [], []
        rows.append(
            {
                "node": process.name,
                "pid": process.pid,
                "addresses": internal_ips(conversation.spec, conversation.spec.node(process.name)),
                "boots": process.boots,
                "up_seconds": round(now - process.booted, 1),
                "pods": len(sandboxes),
                "containers": [
                    {
                        "pod": f"{c.labels.get('namespace')}/{c.labels.get('pod')}",
                        "container": c.labels.get("container", ""),
                        "pid": c.pid,
                        "state": "Running" if c.pid else f"Exited ({c.exit_code})",
                        "restarts": int(c.labels.get("restart", "0")),
                    }
                    for c in containers
                ],
            }
        )
    return {"lab": conversation.spec.name, "api": "up" if report.api else "down", "nodes": rows}


def down(conversation: Conversation) -> dict[str, Any]:
    """End the lab. The answer is sent first: this process ends with all the others."""
    conversation.say(result={})
    ask(Order(op="down"))
    return {}


def kill_agent(conversation: Conversation) -> dict[str, Any]:
    """SIGKILL the agent on a node; the kubelet starts it again."""
    node = node_process(str(conversation.argument("node"))).name
    killed = agents(listed(node)[1])
    if not killed:
        raise LabError(f"no agent is running on {node}", "see `towpath lab ps`")
    with connect(STATE / "nodes" / node / "runtime.sock") as connection:
        for container in killed:
            call(connection, Signal(id=container.id, signal=signal.SIGKILL))
    return {"killed": len(killed)}


def reboot(conversation: Conversation) -> dict[str, Any]:
    """Pull the plug of a node and switch it on again: disk kept, everything else lost."""
    node = str(conversation.argument("node"))
    report = ask(Order(op="reboot", node=node))
    return {"boot_id": next(p.boot_id for p in report.nodes if p.name == node)}


def api_down(_: Conversation) -> dict[str, Any]:
    """Kill the API server (and controllers); connections are refused until ``api-up``."""
    ask(Order(op="api-down"))
    return {}


def api_up(_: Conversation) -> dict[str, Any]:
    """Start the API server again, with everything it knew."""
    ask(Order(op="api-up"))
    return {}


VERBS: dict[str, Verb] = {
    "ps": ps,
    "down": down,
    "kill-agent": kill_agent,
    "reboot": reboot,
    "api-down": api_down,
    "api-up": api_up,
}
