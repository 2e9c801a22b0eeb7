"""How long a cluster takes from nothing, and what an agent weighs.

    make bench-lab           the last line on stdout is JSON

``up3_s``: three nodes and nine pods Ready; ``up10_s``: ten nodes and 100 pods. Measured from the start of
``towpath lab up`` (its interpreter included) to the last pod's Ready condition, pods created with one request
for a Deployment as soon as ``lab up`` returns. ``agent_rss_mb`` is the largest resident set of any agent with
its pods running. The median of three runs counts for time.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.kinds import PODS, Kind, Raw
from towpath.lab.client import LabClient

RUNS = 3
DEPLOYMENTS: Kind[Raw] = Kind(plural="deployments", type=dict, group="apps")
TOWPATH = (sys.executable, "-m", "towpath", "lab")


def deployment(replicas: int) -> dict[str, object]:
    """Echo pods, as many as asked for."""
    container = {"name": "echo", "image": "towpath/echo:1", "ports": [{"containerPort": 8080}]}
    labels = {"app": "echo"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


async def until_ready(kubeconfig: str, replicas: int) -> None:
    """Create the pods and watch until all are Ready."""
    async with Client(config.load(kubeconfig)) as client:
        await client.create(DEPLOYMENTS, deployment(replicas), "default")
        listing = await client.list(PODS, "default")
        ready: set[str] = set()
        watch = client.watch(PODS, "default", resource_version=listing.resource_version)
        async for event in watch:
            pod = event.object
            if pod and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or []):
                ready.add(pod.metadata.name)
            if len(ready) == replicas:
                return


def agents_rss(client: LabClient) -> float:
    """MB of the heaviest agent, as its own /proc says."""
    largest = 0.0
    for node in client.call("ps")["nodes"]:
        for container in node["containers"]:
            if container["container"] == "agent" and container["pid"]:
                show = [*TOWPATH, "exec", "--name", client.name, node["node"], "--", "cat"]
                status = subprocess.run(
                    [*show, f"/proc/{container['pid']}/status"], capture_output=True, text=True, check=True
                ).stdout
                line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
                largest = max(largest, int(line.split()[1]) / 1024)
    return largest


def measure(nodes: int, pods: int) -> tuple[float, float]:
    """Seconds until all is Ready, and the heaviest agent's MB."""
    name = f"bench-{nodes}"
    begun = time.monotonic()
    subprocess.run([*TOWPATH, "up", "--name", name, "--nodes", str(nodes)], check=True, stdout=sys.stderr)
    client = LabClient(name)
    try:
        up = time.monotonic() - begun
        asyncio.run(until_ready(client.kubeconfig, pods))
        took = time.monotonic() - begun
        print(f"{nodes} nodes {up:.2f} s, with {pods} pods {took:.2f} s", file=sys.stderr)
        return took, agents_rss(client)
    finally:
        subprocess.run([*TOWPATH, "down", "--name", name], check=True)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        Path(runtime).chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        three = [measure(3, 9) for _ in range(RUNS)]
        ten = [measure(10, 100) for _ in range(RUNS)]
    print(
        json.dumps(
            {
                "bench": "lab",
                "up3_s": round(statistics.median(took for took, _ in three), 2),
                "up10_s": round(statistics.median(took for took, _ in ten), 2),
                "agent_rss_mb": round(max(rss for _, rss in three + ten), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
