"""An hour of accidents in the lab, and what is left of the cluster afterwards.

    make soak-chaos                                an hour with a new seed
    python -m bench.soak_chaos --minutes 3 --seed 7

Random faults of all verbs of the lab, pods that come and go, and policies that change, in an order that the
seed decides. With an even seed the agents do not own their table (``own_table``), so that a flush hits them.
At the end, every node's kernel must equal the desired state, everybody reach whom he should and nobody else,
no lease be left over, no address be there twice, and no loss be without a reason. The last line on stdout is
JSON; exit code 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.soak_plan import Action, actions
from bench.soak_watch import GRACE, Watch
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import PODS, Kind, Raw
from towpath.lab.client import LabClient
from towpath.lab.rundir import LabError

LAB, NODES = "soak", ["n1", "n2", "n3"]
TOWPATH = (sys.executable, "-m", "towpath")
DEPLOYMENTS: Kind[Raw] = Kind(plural="deployments", type=dict, group="apps")
RAW_PODS: Kind[Raw] = Kind(plural="pods", type=dict)
POLICIES: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
_SETTLED_WITHIN = 120.0
# Seconds until an agent has mended what was damaged while it was dead, and done what waited for it. The
# kubelet starts one that is killed often after pauses of up to minutes.
_INFORMED = 10.0
_LINES = 150  # of each of its agents' logs
_LEASES = (
    "import sqlite3; db = sqlite3.connect('/var/lib/towpath/leases.db');"
    "print(*(row[0] for row in db.execute('SELECT address FROM leases')))"
)


def echo(labels: dict[str, str]) -> dict[str, Any]:
    """A pod template of the lab's echo server."""
    ports = [{"containerPort": 8080}, {"containerPort": 5353, "protocol": "UDP"}]
    container = {"name": "echo", "image": "towpath/echo:1", "ports": ports}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


def policy(number: int) -> dict[str, Any]:
    """Pods of the Deployment take from each other only: on one port, from the namespace, none, or all."""
    peers = [[{"podSelector": {"matchLabels": {"app": "guests"}}}], [{"podSelector": {}}]]
    rules = [
        [{"from": peers[0], "ports": [{"port": 8080}]}],
        [{"from": peers[1]}],
        [],
        [{"from": [{"ipBlock": {"cidr": "10.42.0.0/16"}}, {"ipBlock": {"cidr": "fd00:10:42::/56"}}]}],
    ][number]
    spec = {"podSelector": {"matchLabels": {"app": "guests"}}, "policyTypes": ["Ingress"], "ingress": rules}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": f"p{number}"},
            "spec": spec}  # fmt: skip


class Chaos:
    """Carries out actions; ``watch`` hears of those that excuse losses."""

    def __init__(self, lab: LabClient, client: Client, watch: Watch) -> None:
        self._lab, self._client, self._watch = lab, client, watch
        self.done: Counter[str] = Counter()
        self._restarts: dict[str, int] = {}
        self._dead: dict[str, int] = {}
        self._ignorant: set[str] = set()

    async def prepare(self) -> None:
        """The anchors and the guests."""
        for node in NODES:
            pod = echo({"app": "anchor"})
            pod["metadata"]["name"] = f"anchor-{node}"
            pod["spec"]["nodeName"] = node
            await self._client.create(PODS, pod, "default")
        guests = {"replicas": 6, "selector": {"matchLabels": {"app": "guests"}}}
        body = {"metadata": {"name": "guests"}, "spec": {**guests, "template": echo({"app": "guests"})}}
        await self._client.create(
            DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", **body}, "default"
        )

    async def do(self, action: Action) -> None:
        """Raises LabError, KubeError."""
        self.done[action.verb] += 1
        match action.verb:
            case "scale":
                await self._client.patch(
                    DEPLOYMENTS, "guests", {"spec": {"replicas": action.number}}, namespace="default"
                )
            case "delete-pod":
                await self._delete_one(action.number)
            case "policy":
                with suppress(KubeError):  # there already
                    await self._client.create(POLICIES, policy(action.number), "default")
            case "no-policy":
                with suppress(KubeError):
                    await self._client.delete(POLICIES, f"p{action.number}", "default")
            case "api-down" | "api-up":
                await asyncio.to_thread(self._lab.call, action.verb)
            case "heal":
                await asyncio.to_thread(self._lab.call, "heal", node=action.node)
                self._watch.mended(action.node, GRACE["cut"])
            case _:
                await self._break(action)

    async def _break(self, action: Action) -> None:
        node = action.node
        if action.verb in GRACE:
            self._watch.broken(node)
        with suppress(LabError):  # no such route: its repair is not over yet
            await asyncio.to_thread(self._lab.call, action.verb, node=node)
        if action.verb == "kill-agent":
            self._dead.setdefault(node, self._restarts.get(node, 0))
        elif node in self._dead:
            self._ignorant.add(node)
        elif action.verb != "cut":
            self._watch.mended(node, GRACE[action.verb])

    async def _delete_one(self, number: int) -> None:
        pods = [p for p in (await self._client.list(PODS, "default")).items if "guests" in p.metadata.name]
        if pods:
            name = sorted(p.metadata.name for p in pods)[number % len(pods)]
            with suppress(KubeError):
                await self._client.delete(PODS, name, "default")

    async def settle(self) -> bool:
        """Wait until every pod is Ready and none is on its way out; the anchors' addresses are told."""
        deadline = time.monotonic() + _SETTLED_WITHIN
        while time.monotonic() < deadline:
            with suppress(KubeError):
                pods = (await self._client.list(PODS)).items
                wanted = (await self._client.get(DEPLOYMENTS, "guests", "default"))["spec"]["replicas"]
                guests = [p for p in pods if p.metadata.name.startswith("guests-")]
                ready = all(
                    p.metadata.deletion_timestamp is None
                    and any(c.type == "Ready" and c.status == "True" for c in p.status.conditions or [])
                    for p in pods
                )
                self.tell(pods)
                await self.see_agents()
                if ready and len(guests) == wanted:
                    return True
            await asyncio.sleep(0.5)
        return False

    def tell(self, pods: list[Any]) -> None:
        """The anchors' addresses: a reboot gives them others."""
        for pod in pods:
            node = pod.metadata.name.removeprefix("anchor-")
            if pod.metadata.name.startswith("anchor-") and (ips := pod.status.pod_ips):
                self._watch.addresses[node] = [ip.ip for ip in ips]

    async def see_agents(self) -> None:
        """Which of those that were killed are back. Raises KubeError."""
        for pod in (await self._client.list(RAW_PODS, "kube-system")).items:
            node, status = pod["spec"].get("nodeName", ""), pod.get("status", {})
            containers = status.get("containerStatuses") or []
            count = sum(container["restartCount"] for container in containers)
            self._restarts[node] = count
            if count > self._dead.get(node, count) and all(c["ready"] for c in containers):
                del self._dead[node]
                if node in self._ignorant:
                    self._ignorant.discard(node)
                    self._watch.mended(node, _INFORMED)


async def addresses(client: Client) -> tuple[dict[str, set[str]], list[str]]:
    """By node, what the API says its pods have; and addresses that two of them have."""
    by_node: dict[str, set[str]] = {node: set() for node in NODES}
    seen: Counter[str] = Counter()
    for pod in (await client.list(PODS)).items:
        if not pod.spec.host_network and pod.status.phase == "Running":
            found = [ip.ip for ip in pod.status.pod_ips or []]
            by_node[pod.spec.node_name].update(found)
            seen.update(found)
    return by_node, [address for address, count in seen.items() if count > 1]


def on(node: str, *command: str) -> str:
    """What a command on a node prints."""
    there = [*TOWPATH, "lab", "exec", "--name", LAB, node, "--", *command]
    return subprocess.run(there, capture_output=True, text=True, check=True, timeout=30).stdout


def leased(node: str) -> set[str]:
    """What a node's lease store has."""
    return set(on(node, sys.executable, "-c", _LEASES).split())


def told(node: str) -> str:
    """What a node's agents said last, for whoever has to find out why it differs."""
    return on(node, "sh", "-c", f"tail -q -n {_LINES} /var/log/pods/kube-system_towpath-*/agent/*.log")


async def judge(client: Client, kubeconfig: str) -> dict[str, Any]:
    """What is wrong at the end. Leases that nobody holds are collected within two resyncs."""
    command = [*TOWPATH, "verify", "--kubeconfig", kubeconfig, "-o", "json"]
    for _ in range(2):
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=300)
        said = json.loads(done.stdout) if done.stdout.strip() else {"nodes": [], "reachability": []}
        if all(node["state"] == "ok" for node in said["nodes"]):
            break
        await asyncio.sleep(_INFORMED)
    for node in said["nodes"]:
        if node["state"] != "ok":
            print(f"{node['node']} differs: {node}\n{told(node['node'])}", file=sys.stderr)
    deadline = time.monotonic() + 20
    while True:
        used, twice = await addresses(client)
        held = {node: await asyncio.to_thread(leased, node) for node in NODES}
        if held == used or time.monotonic() > deadline:
            break
        await asyncio.sleep(1)
    return {
        "verified": len(said["nodes"]) == len(NODES) and bool(said["reachability"]),
        "differs": [node for node in said["nodes"] if node["state"] != "ok"],
        "wrongly_reached_or_not": [cell for cell in said["reachability"] if not cell["ok"]][:10],
        "leaked": sorted(a for node in NODES for a in held[node] - used[node]),
        "unleased": sorted(a for node in NODES for a in used[node] - held[node]),
        "duplicates": twice,
    }


async def soak(lab: LabClient, seed: int, minutes: float) -> dict[str, Any]:
    """Run, and what came of it."""
    async with Client(config.load(lab.kubeconfig)) as client:
        watch = Watch(lab)
        chaos = Chaos(lab, client, watch)
        await chaos.prepare()
        if not await chaos.settle():
            raise SystemExit("the cluster was not ready to begin with")
        watching = asyncio.create_task(watch.run())
        end = time.monotonic() + minutes * 60
        api_up = True
        for action in actions(seed, NODES):
            if time.monotonic() > end and api_up and action.verb not in ("heal", "api-up"):
                break
            print(f"{watch.now:7.1f} {action.verb} {action.node or action.number}", file=sys.stderr)
            await chaos.do(action)
            api_up = action.verb != "api-down" if action.verb.startswith("api-") else api_up
            await asyncio.sleep(action.pause)
            if api_up:
                with suppress(KubeError):
                    chaos.tell((await client.list(PODS, "default")).items)
                    await chaos.see_agents()
        settled = await chaos.settle()
        await asyncio.sleep(5)
        watching.cancel()
        found = await judge(client, lab.kubeconfig)
        losses = [f"{x.at:.1f} {x.source} → {x.target}: {x.error}" for x in watch.losses]
    bad = [name for name, value in found.items() if value and name != "verified"]
    return {
        "bench": "soak-chaos",
        "seed": seed,
        "minutes": minutes,
        "actions": dict(chaos.done),
        "asked": watch.asked,
        "lost_with_reason": watch.explained,
        "lost_without": losses,
        **found,
        "settled": settled,
        "ok": settled and found["verified"] and not bad and not losses,
    }


def main() -> None:
    """Print the outcome; exit code 1 where it is not what it has to be."""
    parser = argparse.ArgumentParser(prog="bench.soak_chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 16))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed} (--seed {chosen.seed} does it again)", file=sys.stderr)
    own = bool(chosen.seed % 2)
    with tempfile.TemporaryDirectory(prefix="towpath-soak-") as runtime:
        Path(runtime).chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        agents = {"resync_seconds": 5, "own_table": own, "offload_probe": False}
        topology = Path(runtime, "topology.json")
        topology.write_text(
            json.dumps({"name": LAB, "nodes": [{"name": n} for n in NODES], "agent_config": agents})
        )
        subprocess.run([*TOWPATH, "lab", "up", "--topology", str(topology)], check=True, stdout=sys.stderr)
        try:
            outcome = asyncio.run(soak(LabClient(LAB), chosen.seed, chosen.minutes))
        finally:
            subprocess.run([*TOWPATH, "lab", "down", "--name", LAB], check=True, stdout=sys.stderr)
    print(json.dumps({**outcome, "own_table": own}))
    sys.exit(0 if outcome["ok"] else 1)


if __name__ == "__main__":
    main()
