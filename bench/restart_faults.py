"""The faults of ``bench.restart``: what is done to a node, and when it is over.

Agents are asked after by a connection that stays open. kubectl, begun anew ten times a second, took most of a
processor: what it is to measure, pods would have waited for it.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import ApiError
from towpath.kube.kinds import DAEMONSETS, Kind, Raw
from towpath.lab.client import LabClient

T = TypeVar("T")

UNOWNED, FLANNEL = "flush_unowned", "flannel_v026"
_READY_WITHIN = 90.0
_COMMAND_WITHIN = 60.0
_PAUSE = 0.1  # seconds between two looks at the agents
_SYSTEM = "kube-system"
_PODS: Kind[Raw] = Kind(plural="pods", type=dict)
_MASQ = "-m comment --comment flanneld_masq"


class FaultFailed(Exception):
    """A fault could not be done, or its node did not come back."""


class Fault(msgspec.Struct, frozen=True):
    """``happen(number)`` does it to a node and returns when all is as it should be again, with how many
    agents it met. It happens in every ``every``-th round. ``prepare`` comes once before. Both raise
    FaultFailed.
    """

    name: str
    happen: Callable[[int], int]
    every: int = 1
    prepare: Callable[[], None] = lambda: None


class Cluster:
    """The lab's agents, and what can be done to them. Made on ``kube``'s loop; methods are for threads."""

    def __init__(self, lab: LabClient, kube: Client, older: Path) -> None:
        self.lab, self._kube, self._older = lab, kube, older
        self._loop = asyncio.get_running_loop()
        self.nodes = [str(node["name"]) for node in lab.call("inspect")["nodes"]]

    def node(self, number: int) -> str:
        """One node after the other."""
        return self.nodes[number % len(self.nodes)]

    def kubectl(self, *arguments: str) -> str:
        """Its output. Raises FaultFailed."""
        return _output(["kubectl", *arguments], {**os.environ, "KUBECONFIG": self.lab.kubeconfig})

    def run_on(self, node: str, script: str) -> str:
        """A shell's output on a node. Raises FaultFailed."""
        command = [sys.executable, "-m", "towpath", "lab", "exec", "--name", self.lab.name, node, "--"]
        return _output([*command, "sh", "-ec", script], dict(os.environ))

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(question, self._loop).result(_COMMAND_WITHIN)
        except (ApiError, TimeoutError) as failed:
            raise FaultFailed(f"the API server: {failed}") from failed

    def agents(self) -> dict[str, tuple[str, str, bool]]:
        """By node: the pod, its process' identity (pod and restarts), if it is Ready. Raises FaultFailed."""
        found: dict[str, tuple[str, str, bool]] = {}
        for pod in self._ask(self._kube.list(_PODS, _SYSTEM, label_selector="k8s-app=towpath")).items:
            statuses = pod["status"].get("containerStatuses") or []
            if pod["metadata"].get("deletionTimestamp") or not statuses:
                continue
            identity = f"{pod['metadata']['uid']} {statuses[0]['restartCount']}"
            ready = bool(statuses[0]["ready"])
            found[str(pod["spec"]["nodeName"])] = (pod["metadata"]["name"], identity, ready)
        return found

    def look_on(self, seconds: float) -> None:
        """Nothing happens, and it is asked about as often as when something does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.agents()
            time.sleep(_PAUSE)

    def wait_for_others(self, nodes: list[str], before: dict[str, tuple[str, str, bool]]) -> None:
        """Until another process is Ready on each of ``nodes``. Raises FaultFailed."""
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline:
            now = self.agents()
            if all(n in now and now[n][2] and now[n][1] != before[n][1] for n in nodes):
                return
            time.sleep(_PAUSE)
        logs = self.kubectl("logs", "-n", "kube-system", "-l", "k8s-app=towpath", "--tail=5")
        raise FaultFailed(f"no Ready agent on {nodes} after {_READY_WITHIN:.0f} s: {self.agents()}\n{logs}")

    def terminate(self, number: int) -> int:
        """SIGTERM, and a new pod: what a rollout does to one node."""
        node, before = self.node(number), self.agents()
        self._ask(self._kube.delete(_PODS, before[node][0], _SYSTEM))
        self.wait_for_others([node], before)
        return 1

    def kill(self, number: int) -> int:
        """SIGKILL; the kubelet starts it again."""
        node, before = self.node(number), self.agents()
        self.lab.call("kill-agent", node=node)
        self.wait_for_others([node], before)
        return 1

    def change_version(self, number: int) -> int:
        """The DaemonSet rolls from this version to the older, or back."""
        older = number // 2 % 2 == 0
        self.roll([str(self._older) if older else sys.executable, "-m", "towpath.agent"])
        return len(self.nodes)

    def roll(self, start: list[str], *more: str) -> None:
        """Replace every agent by one with another command line, node by node."""
        before = self.agents()
        command = [*start, "--config", "/etc/towpath/agent.yaml", *more]
        patch: Any = [{"op": "replace", "path": "/spec/template/spec/containers/0/command", "value": command}]
        self._ask(self._kube.patch(DAEMONSETS, "towpath", patch, _SYSTEM, type="json"))
        self.wait_for_others(self.nodes, before)

    def flush(self, number: int) -> int:
        """``nft flush ruleset``."""
        self.lab.call("flush-rules", node=self.node(number))
        time.sleep(1.0)
        return 1

    def bounce(self, number: int) -> int:
        """``ip link set flannel.1 down``, and up: the kernel drops its routes and neighbours."""
        self.run_on(self.node(number), "ip link set flannel.1 down; ip link set flannel.1 up")
        time.sleep(1.0)
        return 1


def _output(command: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, timeout=_COMMAND_WITHIN
        )
    except (subprocess.SubprocessError, OSError) as failed:
        raise FaultFailed(str(failed)) from failed
    return str(done.stdout, "utf-8")


def restarts(cluster: Cluster) -> tuple[Fault, ...]:
    """In the order in which they happen in a round. A rollout meets all agents, hence fewer of them."""
    return (
        Fault("restart", cluster.terminate),
        Fault("kill", cluster.kill),
        Fault("version", cluster.change_version, every=len(cluster.nodes)),
    )


def damage(cluster: Cluster) -> tuple[Fault, ...]:
    """What others do to a node's network."""
    return (Fault("flush", cluster.flush), Fault("link", cluster.bounce))


def unowned_flush(cluster: Cluster) -> Fault:
    """The flush again where the kernel knows no owners of tables (before 6.9): ours goes with the others."""

    def prepare() -> None:
        cluster.roll([sys.executable, "-m", "towpath.agent"], "--own-table=false")

    return Fault(UNOWNED, cluster.flush, prepare=prepare)


_ADD = """
ip{v}tables -w -t nat -N FLANNEL-POSTRTG
ip{v}tables -w -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
ip{v}tables -w -t nat -A FLANNEL-POSTRTG -s {own} -d {net} {masq} -j RETURN
ip{v}tables -w -t nat -A FLANNEL-POSTRTG -s {net} -d {own} {masq} -j RETURN
ip{v}tables -w -t nat -A FLANNEL-POSTRTG ! -s {net} -d {own} {masq} -j RETURN
ip{v}tables -w -t nat -A FLANNEL-POSTRTG -s {net} ! -d {cast} {masq} -j MASQUERADE --random-fully
ip{v}tables -w -t nat -A FLANNEL-POSTRTG ! -s {net} -d {net} {masq} -j MASQUERADE --random-fully
ip{v}tables -w -t nat -A POSTROUTING {masq} -j FLANNEL-POSTRTG
"""
_DELETE = """
ip{v}tables -w -t nat -D POSTROUTING {masq} -j FLANNEL-POSTRTG
ip{v}tables -w -t nat -F FLANNEL-POSTRTG
ip{v}tables -w -t nat -X FLANNEL-POSTRTG
"""


def flannel_fault(cluster: Cluster) -> Fault:
    """flanneld v0.26's masquerade and what its SIGTERM does to it; its successor is there after a second.

    A second is kind: the pod has init containers to run, and users of rke2 #8151 saw it last longer.
    """

    def rules(node: str, template: str) -> str:
        cidrs = json.loads(cluster.kubectl("get", "node", node, "-o", "json"))["spec"]["podCIDRs"]
        text = ""
        for cidr in cidrs:
            six = ":" in cidr
            text += template.format(
                v="6" if six else "",
                own=cidr,
                net="fd00:10:42::/56" if six else "10.42.0.0/16",
                cast="ff00::/8" if six else "224.0.0.0/4",
                masq=_MASQ,
            )
        return text

    add = {node: rules(node, _ADD) for node in cluster.nodes}
    delete = {node: rules(node, _DELETE) for node in cluster.nodes}

    def prepare() -> None:
        """flannel's chains first, then agents that leave masquerading to them."""
        for node in cluster.nodes:
            cluster.run_on(node, add[node])
        cluster.roll([sys.executable, "-m", "towpath.agent"], "--masquerade=false")

    def happen(number: int) -> int:
        node = cluster.node(number)
        cluster.run_on(node, f"{delete[node]}\nsleep 1\n{add[node]}")
        return 1

    return Fault(FLANNEL, happen, prepare=prepare)
