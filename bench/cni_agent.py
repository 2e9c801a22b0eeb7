"""The agent's part of a CNI call in a process of its own: server, engine, lease store, kernel.

``python -m bench.cni_agent FOLDER`` serves FOLDER/cni.sock, says READY, and stops on SIGTERM. The pods it is
asked for are taken to be in the cache, as they are on a node.
"""

import asyncio
import signal
import sys
import time
from ipaddress import IPv4Network, ip_network
from pathlib import Path

from towpath.agent.attach_setup import attachments
from towpath.agent.attachments import AttachSettings
from towpath.api.core import Pod
from towpath.api.meta import ObjectMeta
from towpath.cni.server import serve
from towpath.desired.ruleset import ruleset
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.model.network import ClusterNetwork
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

POD_CIDR = ip_network("10.88.0.0/16")


class Cached:
    """Every pod is known."""

    async def find(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name."""
        return Pod(metadata=ObjectMeta(name=name, namespace=namespace, uid=f"uid-of-{name}"))


async def run(folder: Path) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    host = LinuxKernel()
    assert isinstance(POD_CIDR, IPv4Network)
    table = ruleset(ClusterNetwork(ipv4=POD_CIDR), [POD_CIDR], [])
    host.apply(diff(NetState(), NetState(nft=table), Scope()))
    store = LeaseStore(
        folder / "leases.db", boot_id="bench", clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    )
    store.open()
    settings = AttachSettings(pod_cidrs=(POD_CIDR,), not_ready="")
    async with attachments(store, host, Cached(), settings, asyncio.Lock()) as handler:
        server = await serve(folder / "cni.sock", handler)
        print("READY", flush=True)
        await stop.wait()
        await server.close()
    store.close()
    host.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
