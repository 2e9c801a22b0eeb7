"""A cluster for what a conductor does to its objects: the lab's API server, scheduler, DaemonSet controller,
and kubelets that only say that pods run. Nothing has a network.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from apiserver_world import TOKEN, world

from towpath.install.migration import LABEL, TAKEN
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import ApiError
from towpath.kube.kinds import DAEMONSETS, NODES, PODS, Raw
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.daemonset import DaemonSetController
from towpath.lab.controllers.events import EventRecorder
from towpath.lab.controllers.informers import Informers
from towpath.lab.controllers.scheduler import Scheduler
from towpath.lab.controllers.settings import Settings
from towpath.upgrade.conductor import look
from towpath.upgrade.moving import MOVES
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import Seen

SYSTEM = "kube-system"
_EVERY = 0.005
_ENDED = {"terminated": {"exitCode": 0, "reason": "Completed"}}


class Kubelets:
    """Of all nodes. ``mute``: nodes that say nothing any more."""

    def __init__(self, client: Client) -> None:
        self._client, self.mute = client, set[str]()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for pod in (await self._client.list(PODS.raw())).items:
                if pod["spec"].get("nodeName") not in {None, *self.mute}:
                    with contextlib.suppress(ApiError):
                        await self._sync(pod)
            await asyncio.sleep(_EVERY)

    async def _sync(self, pod: Raw) -> None:
        meta = pod["metadata"]
        if "deletionTimestamp" in meta:
            await self._client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0)
        elif direction := (meta.get("annotations") or {}).get(MOVES):
            if pod["status"].get("phase") != "Succeeded":
                label = {LABEL: TAKEN if direction == "takeover" else None}
                await self._client.patch(
                    NODES.raw(), pod["spec"]["nodeName"], {"metadata": {"labels": label}}
                )
                await self._say(pod, {"phase": "Succeeded"})
        elif pod["status"].get("phase") != "Running":
            statuses = [_runs(container) for container in pod["spec"]["containers"]]
            begun = [
                _runs(container) | {"state": _ENDED} for container in pod["spec"].get("initContainers", ())
            ]
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            all_of_them = {"containerStatuses": statuses, "initContainerStatuses": begun}
            await self._say(pod, status | all_of_them)

    async def _say(self, pod: Raw, status: Raw) -> None:
        meta = pod["metadata"]
        path = PODS.raw()
        await self._client.patch(
            path, meta["name"], {"status": status}, meta["namespace"], subresource="status"
        )


def _runs(container: Raw) -> Raw:
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    fields = {"ready": True, "started": True, "restartCount": 0, "state": state}
    return {"name": container["name"], "image": container["image"], "imageID": container["image"], **fields}


class Cluster:
    """``config``: how a client reaches it; ``client``: one with all rights."""

    def __init__(self, config: ClientConfig, client: Client, kubelets: Kubelets) -> None:
        self.config, self.client, self.kubelets = config, client, kubelets

    async def seen(self, plan: Plan) -> Seen:
        """As the conductor sees it."""
        return await look(self.client, plan)

    def kubeconfig(self, folder: Path) -> Path:
        """For programs that read one."""
        file = folder / "kubeconfig"
        clusters = [{"name": "c", "cluster": {"server": self.config.server}}]
        users = [{"name": "u", "user": {"token": self.config.token}}]
        contexts = [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
        named = {"clusters": clusters, "users": users, "contexts": contexts, "current-context": "x"}
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **named}))
        return file

    async def ready(self, daemonset: str, nodes: int, namespace: str = SYSTEM) -> Raw:
        """The DaemonSet, once its controller tells of pods on so many nodes, all ready."""
        deadline = time.monotonic() + 240
        while True:
            raw = await self.client.get(DAEMONSETS, daemonset, namespace)
            status = raw.get("status") or {}
            if status.get("numberReady", 0) == nodes == status.get("desiredNumberScheduled"):
                return raw
            assert time.monotonic() < deadline, status
            await asyncio.sleep(_EVERY)


@contextlib.asynccontextmanager
async def cluster(folder: Path, *nodes: str) -> AsyncIterator[Cluster]:
    """With these nodes, Ready."""
    async with world(folder) as api:
        config = ClientConfig(server=api.url, source="test", token=TOKEN)
        async with Client(config) as client, Client(config) as theirs:
            for name in nodes:
                await client.create(NODES.raw(), _node(name))
            kubelets = Kubelets(theirs)
            working = asyncio.create_task(_work(theirs, kubelets))
            try:
                yield Cluster(config, client, kubelets)
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)


async def _work(client: Client, kubelets: Kubelets) -> None:
    async with asyncio.TaskGroup() as group:
        recorder = EventRecorder(client, time.time)
        context = Context(client, Informers(client, group), recorder.record, Settings(), time.time)
        controllers: list[Controller] = [Scheduler(context), DaemonSetController(context)]
        for controller in controllers:
            group.create_task(controller.run())
        group.create_task(kubelets.run())


def _node(name: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    room = {"cpu": "8", "memory": "8Gi", "pods": "110"}
    status = {"conditions": [ready], "allocatable": room, "capacity": room}
    return {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}, "status": status}
