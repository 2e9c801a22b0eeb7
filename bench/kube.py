"""Thirty pods on one node of real Kubernetes: Towpath against Debian's bridge + host-local + portmap.

    make bench-kube          the last line on stdout is JSON

One kubelet, one containerd. The chains take turns: containerd uses the lexically first file of
/etc/cni/net.d, and the peer's is there only while it is its turn. ``ready_ratio`` compares the time from the
first pod's creation until all are Ready, the median of the turns. ``cni_ratio`` compares the mean time of an
ADD: Towpath's from the agent's own histogram, the peer's around the execution of its two plugins (the third,
host-local, is executed by the first), which a stand-in notes in a turn of its own that does not count for
``ready_ratio``.
"""

import asyncio
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from towpath.api.core import Pod
from towpath.install.render import render
from towpath.install.values import Values, values
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.codec import Event
from towpath.kube.kinds import PODS
from towpath.lab import topology
from towpath.lab.real.binaries import find_binaries
from towpath.lab.real.cluster import RealCluster
from towpath.lab.real.images import PROBE, build_images
from towpath.lab.real.machine import Machine
from towpath.lab.rundir import LabError
from towpath.lab.topology import lab_spec

PODS_A_TURN = 30
TURNS = 4
_PATIENCE = 180.0
TARGETS = {"ready_ratio": 0.9, "cni_ratio": 0.3}
DEBIAN = Path("/usr/lib/cni")
CHAINED = ("bridge", "portmap")
PLUGINS = (*CHAINED, "host-local")
TIMES = "/run/cni-times"
_SUM = re.compile(r'towpath_cni_seconds_(sum|count)\{command="ADD"\} ([0-9.e+-]+)')


def main() -> None:
    """Run in a world of its own (``make bench-kube``), print, exit 0."""
    cluster = RealCluster(find_binaries(_say), build_images(_say), lab_spec({}, nodes=1), Path("/lab"))
    try:
        cluster.start()
        _install(cluster)
        print(json.dumps(asyncio.run(_measure(cluster))), flush=True)
    finally:
        cluster.stop()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _install(cluster: RealCluster) -> None:
    cluster.apply(render(_values(cluster)))

    def ready() -> bool:
        status = cluster.get("daemonset", "towpath", "-n", "kube-system")["status"]
        return bool(status.get("numberReady") == 1)

    cluster.wait_until(ready, "the agent is Ready", 90)


def _values(cluster: RealCluster) -> Values:
    networks = topology.networks(cluster.spec, topology.POD_NETWORK4, topology.POD_NETWORK6)
    return values({"cluster_cidrs": networks, "agent": {"boot_id_file": "/run/towpath/boot-id"}})


class Peer:
    """Debian's plugins on a node, switched on and off by their configuration file."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._conf = machine.path("/etc/cni/net.d/05-debian.conflist")
        self._bin = machine.path("/opt/cni/bin")
        for plugin in PLUGINS:
            shutil.copy2(DEBIAN / plugin, self._bin)

    def switch(self, *, on: bool) -> None:
        """Put the configuration in place or take it away, and let containerd notice."""
        if on:
            part = self._conf.with_suffix(".part")
            part.write_text(json.dumps(_peer_conflist()))
            part.rename(self._conf)
        else:
            self._conf.unlink(missing_ok=True)
        time.sleep(1.0)

    def time_executions(self) -> None:
        """From now on each execution is noted."""
        (self._bin / ".real").mkdir()
        stand_in = self._bin / ".timed"
        source = Path(__file__).with_name("timed_plugin.c")
        subprocess.run(["cc", "-O2", "-static", "-o", str(stand_in), str(source)], check=True)
        for plugin in CHAINED:
            (self._bin / plugin).rename(self._bin / ".real" / plugin)
            shutil.copy2(stand_in, self._bin / plugin)

    def add_seconds(self) -> list[float]:
        """Of each container, what the chain's executions for ADD took together."""
        taken: dict[str, int] = {}
        for line in self._machine.path(TIMES).read_text().splitlines():
            command, _, container, nanoseconds = line.split()
            if command == "ADD":
                taken[container] = taken.get(container, 0) + int(nanoseconds)
        return [value / 1e9 for value in taken.values()]


def _peer_conflist() -> dict[str, Any]:
    ranges = [[{"subnet": "10.42.200.0/24"}], [{"subnet": "fd00:10:42:c8::/64"}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "dataDir": "/var/lib/cni/networks",
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "debian", "plugins": [bridge, portmap]}


async def _measure(cluster: RealCluster) -> dict[str, Any]:
    machine = cluster.machines["n1"]
    peer = Peer(machine)
    turns: dict[str, list[float]] = {"towpath": [], "peer": []}
    adds: list[float] = []
    async with Client(config.load(str(cluster.kubeconfig))) as client:
        await _turn(client, "warm")
        for number in range(TURNS):
            for name, seconds in turns.items():
                peer.switch(on=name == "peer")
                before = _agent_adds(machine)
                seconds.append(await _turn(client, f"{name}-{number}"))
                if name == "towpath":
                    adds.append(_mean_since(before, _agent_adds(machine)))
                _say(f"{name:8} turn {number + 1} of {TURNS}: {seconds[-1]:.2f} s until all are Ready")
        peer.time_executions()
        peer.switch(on=True)
        await _turn(client, "timed")
        peer.switch(on=False)
    theirs = statistics.mean(peer.add_seconds())
    ready = {name: statistics.median(seconds) for name, seconds in turns.items()}
    ours = statistics.mean(adds)
    return {
        "bench": "kube",
        "ready_ratio": round(ready["towpath"] / ready["peer"], 3),
        "cni_ratio": round(ours / theirs, 3),
        "targets": TARGETS,
        "towpath": {"ready_s": round(ready["towpath"], 2), "add_mean_ms": round(ours * 1e3, 2)},
        "peer": {"ready_s": round(ready["peer"], 2), "add_mean_ms": round(theirs * 1e3, 2)},
        "pods": PODS_A_TURN,
        "n": TURNS,
        "kubernetes": str(cluster.binaries.version),
    }


def _agent_adds(machine: Machine) -> tuple[float, float]:
    """Sum in seconds and count of the ADDs the agent has answered."""

    def ask() -> str:
        with urllib.request.urlopen("http://127.0.0.1:9109/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    found = {what: float(value) for what, value in _SUM.findall(machine.inside(ask))}
    return found.get("sum", 0.0), found.get("count", 0.0)


def _mean_since(before: tuple[float, float], after: tuple[float, float]) -> float:
    count = after[1] - before[1]
    if count != PODS_A_TURN:
        raise LabError(f"{count:.0f} ADDs of {PODS_A_TURN} went through the agent: is its conflist in use?")
    return (after[0] - before[0]) / count


async def _turn(client: Client, name: str) -> float:
    """Create the pods all at once, wait until all are Ready, delete them; the seconds until Ready."""
    names = [f"{name}-{number}" for number in range(PODS_A_TURN)]
    version = (await client.list(PODS, "default")).resource_version
    begun = time.monotonic()
    await asyncio.gather(*(client.create(PODS.raw(), _pod(one), "default") for one in names))
    await _until(client, version, names, lambda event: event.object is not None and _ready(event.object))
    took = time.monotonic() - begun
    version = (await client.list(PODS, "default")).resource_version
    await asyncio.gather(*(client.delete(PODS.raw(), one, "default") for one in names))
    await _until(client, version, names, lambda event: event.type == "DELETED")
    return took


async def _until(
    client: Client, version: str, names: list[str], happened: Callable[[Event[Pod]], bool]
) -> None:
    """Watch from ``version`` on until it has happened to all pods."""
    waiting = set(names)
    async with (
        asyncio.timeout(_PATIENCE),
        contextlib.aclosing(client.watch(PODS, "default", resource_version=version)) as events,
    ):
        async for event in events:
            if happened(event):
                waiting.discard(event.key[1])
            if not waiting:
                return


def _ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def _pod(name: str) -> dict[str, Any]:
    container = {
        "name": "web",
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": ["/probe", "serve", "8080"],
    }
    spec = {
        "nodeName": "n1",
        "automountServiceAccountToken": False,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,  # 0 is by force, and a kubelet then starts some once more
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


if __name__ == "__main__":
    try:
        main()
    except (LabError, msgspec.ValidationError) as failed:
        sys.exit(f"bench-kube: {failed}")
