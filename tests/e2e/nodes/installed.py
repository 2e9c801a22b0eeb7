"""The cluster with Towpath on it, in the words of the tests."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cluster_state import agents, tail, unwell
from towpath.image import seccomp
from towpath.install.render import render
from towpath.install.values import Values, values
from towpath.kernel.netns import run_in
from towpath.lab import topology
from towpath.lab.real.cluster import RealCluster
from towpath.lab.real.echo import ask
from towpath.lab.real.images import PROBE

T = TypeVar("T")
PORT = 8080


class Installed:
    """A ``RealCluster`` and what tests ask of it."""

    def __init__(self, real: RealCluster) -> None:
        self.real = real

    @property
    def values(self) -> Values:
        """How Towpath is installed here: the boot id is the node's, not the machine's; with the profile."""
        networks = topology.networks(self.real.spec, topology.POD_NETWORK4, topology.POD_NETWORK6)
        agent = {"boot_id_file": "/run/towpath/boot-id"}
        return values({"cluster_cidrs": networks, "seccomp_profile": seccomp.NAME, "agent": agent})

    def install(self) -> None:
        """Apply the manifests and wait until every node is Ready."""
        self.real.apply(render(self.values))
        self.wait_nodes()

    def wait_nodes(self, seconds: float = 300) -> None:
        """Wait until all nodes are Ready and have a Ready agent."""
        self.real.wait_until(self._nodes_ready, "nodes Ready", seconds)
        self.real.wait_until(self._agents_ready, "agents Ready", seconds)

    def _nodes_ready(self) -> bool:
        nodes = self.real.get("nodes")["items"]
        ready = [
            n for n in nodes if condition(n, "Ready") == "True" == flip(condition(n, "NetworkUnavailable"))
        ]
        return len(ready) == len(nodes) == len(self.real.machines)

    def _agents_ready(self) -> bool:
        status = self.real.get("daemonset", "towpath", "-n", "kube-system")["status"]
        wanted = len(self.real.machines)
        return bool(
            status.get("numberReady") == status.get("updatedNumberScheduled") == wanted
            and status["desiredNumberScheduled"] == wanted
        )

    def deploy(self, name: str, replicas: int, **template: Any) -> list[dict[str, Any]]:
        """A Deployment of web servers; returns its pods when all are Ready."""
        self.real.apply([deployment(name, replicas, **template)])
        return self.wait_pods(name, replicas)

    def run(self, name: str, node: str = "", ports: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
        """One Ready pod, on ``node`` if given."""
        self.real.apply([pod(name, node, ports)])
        return self.wait_pods(name, 1)[0]

    def wait_pods(self, app: str, count: int, seconds: float = 300) -> list[dict[str, Any]]:
        """Wait until ``count`` pods of ``app`` are Ready and there are no others."""
        found: list[dict[str, Any]] = []

        def ready() -> bool:
            found[:] = self.real.get("pods", "-l", f"app={app}")["items"]
            return len(found) == count and all(condition(p, "Ready") == "True" for p in found)

        self.real.wait_until(ready, f"{count} pods of {app} Ready", seconds)
        return found

    def pods(self) -> list[dict[str, Any]]:
        """Pods that have addresses of their own, finished ones excepted."""
        everybody = self.real.get("pods", "-A")["items"]
        return [
            p
            for p in everybody
            if not p["spec"].get("hostNetwork") and p["status"]["phase"] not in ("Succeeded", "Failed")
        ]

    def inside(self, name: str, function: Callable[[], T]) -> T:
        """Call ``function`` in the network namespace of pod ``name``."""
        pid = self.real.machines[self.node_of(name)].pod_process(name)
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            return run_in(netns, function)
        finally:
            os.close(netns)

    def node_of(self, name: str) -> str:
        """The node a pod is on."""
        node: str = self.real.get("pod", name)["spec"]["nodeName"]
        return node

    def ask_from(self, name: str, address: str, port: int = PORT) -> tuple[str, str]:
        """From pod ``name``: who answers at ``address`` and as whom it sees us; asks again for 10 s."""
        return patiently(lambda: self.inside(name, lambda: ask(address, port)))

    def leases(self, node: str) -> set[str]:
        """Leased addresses on a node's disk."""
        return {address for (address,) in self.read(node, "leases.db", "SELECT address FROM leases")}

    def read(self, node: str, file: str, question: str) -> list[Any]:
        """Rows of one of the agent's databases. It holds the file, so a copy is read.

        The log is copied first: what a checkpoint moves from it meanwhile is then in both, and not in none.
        """
        disk = self.real.machines[node].disk / "var-lib-towpath"
        deadline = time.monotonic() + 60
        while True:
            with tempfile.TemporaryDirectory() as folder:
                for name in (f"{file}-wal", file):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy2(disk / name, folder)
                try:
                    with contextlib.closing(sqlite3.connect(Path(folder, file))) as database:
                        return database.execute(question).fetchall()
                except sqlite3.DatabaseError:  # copied while it was written
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.1)

    def interfaces(self, node: str) -> int:
        """How many pod interfaces a node has."""
        listed = self.real.machines[node].run("ip", "-o", "link", "show", "type", "veth")
        return listed.count(": cali")

    def differences(self) -> list[str]:
        """What leases and interfaces have more or less than the pods there are."""
        pods = self.pods()
        found = []
        for node in self.real.machines:
            wanted = {ip for p in pods if p["spec"].get("nodeName") == node for ip in addresses(p)}
            if (held := self.leases(node)) != wanted:
                found.append(f"{node}: leased {sorted(held - wanted)}, not leased {sorted(wanted - held)}")
            here = sum(1 for p in pods if p["spec"].get("nodeName") == node)
            if (links := self.interfaces(node)) != here:
                found.append(f"{node}: {links} interfaces of {here} pods")
        return found

    def wait_nothing_leaked(self, seconds: float = 300) -> None:
        """Wait until leases and interfaces are exactly those of the pods there are."""
        last: list[str] = []

        def same() -> bool:
            last[:] = self.differences()
            return not last

        try:
            self.real.wait_until(same, "no leak", seconds)
        except Exception as late:
            raise AssertionError("; ".join(last)) from late

    def delete_workloads(self) -> None:
        """Delete what tests made. By force: a kubelet's own word on a pod's end may take it ten seconds."""
        kinds = "deployments,replicasets,services,pods"
        force = ("--grace-period=0", "--force", "--wait=false")
        self.real.kubectl("delete", kinds, "-l", "e2e=yes", *force)

    def told(self) -> Iterator[str]:
        """What a failed test is best understood by. Raises LabError, OSError."""
        kubectl = partial(self.real.kubectl, "--request-timeout=20s", check=False)
        yield from unwell(kubectl)
        yield from agents(kubectl)
        plane = self.real.folder / "plane" / "log"
        logs = [plane / f"kube-{name}.log" for name in ("controller-manager", "apiserver")]
        for machine in self.real.machines.values():
            folder = machine.disk / "var-log"
            logs += [folder / f"{log}.log" for log in ("kubelet", "containerd")]
        for log in logs:
            yield from tail(str(log), "\n".join(log.read_text(errors="replace").splitlines()[-2:]))


def patiently(question: Callable[[], T], seconds: float = 300) -> T:
    """Ask again while the answer is an OSError: rules of a new Service take a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return question()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def condition(item: dict[str, Any], kind: str) -> str:
    """A condition's status, "" where it is absent."""
    return next((c["status"] for c in item["status"].get("conditions", []) if c["type"] == kind), "")


def flip(status: str) -> str:
    """True for a False."""
    return {"True": "False", "False": "True"}.get(status, status)


def addresses(item: dict[str, Any]) -> list[str]:
    """A pod's addresses, IPv4 first."""
    return [ip["ip"] for ip in item["status"].get("podIPs", [])]


def pod(name: str, node: str = "", ports: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A web server."""
    body = {**_template(name, ports), "apiVersion": "v1", "kind": "Pod"}
    body["metadata"]["name"] = name
    if node:
        body["spec"]["nodeName"] = node
    return body


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """Web servers, evenly spread."""
    template = _template(name, ())
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": name}},
        }
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"e2e": "yes"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    """A Service in front of the pods of app ``name``, both families."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"e2e": "yes"}},
        "spec": {
            "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": PORT}],
            "ipFamilyPolicy": "PreferDualStack",
            **spec,
        },
    }


def _template(app: str, ports: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    container = {
        "name": "web",
        "image": PROBE,
        "imagePullPolicy": "Never",
        "command": ["/probe", "serve", str(PORT)],
        "ports": list(ports),
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    return {
        "metadata": {"labels": {"app": app, "e2e": "yes"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists", "key": "node.kubernetes.io/not-ready"}],
            "containers": [container],
        },
    }
