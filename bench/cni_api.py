"""What the agent needs of a cluster: an API server with its Node and the pods about to be attached.

``python -m bench.cni_api FOLDER`` reads a pod's name a line from stdin, and behind a blank the networks it
asks for; where FOLDER/definitions.json has networks by name, it has those. It writes FOLDER/kubeconfig, says
READY, and serves until SIGTERM. It is the tests' API server: attaching asks nobody for a pod that is cached.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from bench.cni_exec import NODE, NODE_ADDRESS, POD_CIDR
from towpath.agent.network_definitions import DEFINITIONS
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import NODES, PODS
from towpath.multinet.annotation import NETWORKS


async def serve(folder: Path, lines: list[str]) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    api = await FakeApiServer.start()
    node = {
        "metadata": {"name": NODE},
        "spec": {"podCIDR": POD_CIDR, "podCIDRs": [POD_CIDR]},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
    }
    api.put(NODES, node)
    definitions = folder / "definitions.json"
    for name, config in json.loads(definitions.read_text() if definitions.exists() else "{}").items():
        spec = {"config": json.dumps(config)}
        api.put(DEFINITIONS, {"metadata": {"name": name, "namespace": "bench"}, "spec": spec})
    api.served[DEFINITIONS.group, DEFINITIONS.version] = [DEFINITIONS.plural]
    for line in lines:
        name, _, networks = line.partition(" ")
        annotations = {NETWORKS: networks} if networks else {}
        metadata = {"name": name, "namespace": "bench", "uid": f"uid-of-{name}", "annotations": annotations}
        api.put(PODS, {"metadata": metadata, "spec": {"nodeName": NODE}})
    clusters = {"clusters": [{"name": "c", "cluster": {"server": api.config().server}}]}
    context = {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
    (folder / "kubeconfig").write_text(json.dumps(clusters | context))
    print("READY", flush=True)
    await stop.wait()
    await api.down()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.stdin.read().splitlines()))
