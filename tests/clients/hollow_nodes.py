"""Nodes without a network, for what only needs pods to start and end; kubemark calls them hollow."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patience import PATIENT
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.config import from_files
from towpath.kube.errors import AlreadyExists, ApiError
from towpath.kube.kinds import Kind, Raw
from towpath.kube.reflector import Reflector, Selection

PODS: Kind[Raw] = Kind(plural="pods", type=Raw)
NODES: Kind[Raw] = Kind(plural="nodes", type=Raw, namespaced=False)
LEASES: Kind[Raw] = Kind(plural="leases", type=Raw, group="coordination.k8s.io")


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class HollowNodes:
    """Nodes whose pods run at once. ``broken`` images never get ready; ``silent`` nodes are dead."""

    def __init__(self, client: Client, count: int) -> None:
        self.names = [f"node-{i + 1}" for i in range(count)]
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self._client = client
        self._seen: dict[str, str] = {}
        self._work: asyncio.Queue[Key] = asyncio.Queue()
        self._pods: Reflector[Raw] = Reflector(client, Selection(kind=PODS), self._changed)
        self._next = 10

    async def run(self, beat: float = 1.0) -> None:
        for name in self.names:
            await self.register(name)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pods.run())
            group.create_task(self._heartbeat(beat))
            for _ in range(4):
                group.create_task(self._worker())

    async def register(self, name: str) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        }
        with contextlib.suppress(AlreadyExists):
            await self._client.create(NODES, node)
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _stamp()}
        await self._client.patch(NODES, name, {"status": {"conditions": [ready]}}, subresource="status")

    async def wake(self, name: str) -> None:
        """A silent node speaks again, and catches up with what it missed."""
        self.silent.discard(name)
        await self.register(name)
        for key in self._pods.objects:
            self._work.put_nowait(key)

    async def _heartbeat(self, every: float) -> None:
        while True:
            for name in self.names:
                if name in self.silent:
                    continue
                spec = {
                    "holderIdentity": name,
                    "renewTime": f"{_stamp()[:-1]}.{time.time_ns() % 10**9 // 1000:06}Z",
                }
                lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec}
                try:
                    await self._client.patch(LEASES, name, {"spec": spec}, "kube-node-lease")
                except ApiError:
                    with contextlib.suppress(ApiError):
                        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
                        await self._client.create(LEASES, body, "kube-node-lease")
            await asyncio.sleep(every)

    def _changed(self, key: Key | None) -> None:
        if key is not None:
            self._work.put_nowait(key)

    async def _worker(self) -> None:
        while True:
            key = await self._work.get()
            pod = self._pods.objects.get(key)
            if pod is None or pod["spec"].get("nodeName") in (None, *self.silent):
                continue
            with contextlib.suppress(ApiError):
                if pod["metadata"].get("deletionTimestamp"):
                    await self._client.delete(
                        PODS, key[1], key[0], uid=pod["metadata"]["uid"], grace_seconds=0
                    )
                elif pod["metadata"]["uid"] not in self._seen:
                    await self._start(key, pod)

    async def _start(self, key: Key, pod: Raw) -> None:
        uid = pod["metadata"]["uid"]
        self._next += 1
        self._seen[uid] = ip = f"10.42.{self._next // 250}.{self._next % 250 + 2}"
        broken = any(c["image"] in self.broken for c in pod["spec"]["containers"])
        state = "False" if broken else "True"
        conditions = [
            {"type": t, "status": state, "lastTransitionTime": _stamp()} for t in ("Ready", "ContainersReady")
        ]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _stamp()}
        status: dict[str, Any] = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}, {"ip": f"fd00:10:42::{self._next:x}"}],
            "conditions": [scheduled, *conditions],
        }
        await self._client.patch(
            PODS, key[1], {"metadata": {"uid": uid}, "status": status}, key[0], subresource="status"
        )


class HollowCluster:
    """Hollow nodes in a thread of their own; ``call`` runs a coroutine function there."""

    def __init__(self, kubeconfig: Path, count: int) -> None:
        self._kubeconfig, self._count = kubeconfig, count
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.nodes: HollowNodes
        self._thread = threading.Thread(target=self._run, name="hollow nodes")

    @contextlib.contextmanager
    def running(self) -> Iterator["HollowCluster"]:
        self._thread.start()
        assert self._ready.wait(PATIENT)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(PATIENT)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._main())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _main(self) -> None:
        async with Client(from_files([self._kubeconfig])) as client:
            self.nodes = HollowNodes(client, self._count)
            self._ready.set()
            await self.nodes.run()
