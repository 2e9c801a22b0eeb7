"""The lab's kubelet: follows its pods, one worker each; its runtime is the process it was forked from."""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

import msgspec

from towpath.kernel.linux import LinuxKernel
from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.kinds import Kind
from towpath.kube.reflector import Reflector, Selection
from towpath.lab import credentials, serviceproxy, topology
from towpath.lab.kubelet_cni import Call, Cni, CniFailed
from towpath.lab.kubelet_events import Recorder
from towpath.lab.kubelet_node import NodeKeeper
from towpath.lab.kubelet_pod import PodWorker
from towpath.lab.kubelet_server import serve
from towpath.lab.kubelet_services import Checkpoint, Services, read_checkpoints
from towpath.lab.kubelet_spec import Pod
from towpath.lab.rootfs import STATE
from towpath.lab.runtime_api import (
    Container,
    Exited,
    ExitWatch,
    List,
    RemoveContainer,
    RemoveSandbox,
    Runtime,
    RuntimeRefused,
)
from towpath.lab.topology import LabSpec, NodeSpec
from towpath.log import configure, get_logger

PODS: Kind[Pod] = Kind(plural="pods", type=Pod)
# In a large lab many sandboxes are made at once, and every agent hears of every write of a pod.
_PATIENCE, _PATIENCE_A_NODE = 0.15, 0.05

log = get_logger(__name__)


class Kubelet:
    """One node's kubelet."""

    def __init__(self, spec: LabSpec, one: NodeSpec, boot_id: str, client: Client) -> None:
        self._one = one
        folder = STATE / "nodes" / one.name
        cni = Cni(remember=spec.cni != "canal")  # RKE2's containerd, which a migration is tried with
        self._node = NodeKeeper(client, cni, spec, one, boot_id)
        self._services = Services(
            node=one.name,
            host_ips=topology.internal_ips(spec, one),
            client=client,
            runtime=Runtime(folder / "runtime.sock"),
            cni=cni,
            recorder=Recorder(client, one.name),
            environment={
                "KUBERNETES_SERVICE_HOST": _api_service(spec),
                "KUBERNETES_SERVICE_PORT": "443",
                "KUBERNETES_SERVICE_PORT_HTTPS": "443",
            },
            network_ready=self._node.network_ready,
            patience=max(_PATIENCE, _PATIENCE_A_NODE * len(spec.nodes)),
        )
        self._socket = folder / "kubelet.sock"
        self._client = client
        self._spec = spec
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._checkpoints: dict[str, Checkpoint] = {}
        self._found: list[Container] = []
        self._lost: set[str] = set()
        selection = Selection(kind=PODS, field_selector=f"spec.nodeName={one.name}")
        self._pods = Reflector(client, selection, self._changed)

    async def run(self) -> None:
        """Until cancelled; the first part that fails ends it (and the runtime starts another)."""
        watch = ExitWatch(self._services.runtime.path)
        await self._recover()
        parts: list[Coroutine[Any, Any, None]] = [
            self._node.run(),
            self._pods.run(),
            self._services.recorder.run(),
            self._follow_exits(watch),
            serve(self._socket, self),
            serviceproxy.run_service_proxy(
                self._client, LinuxKernel(), self._one.name, topology.pod_networks(self._spec)
            ),
        ]
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod, for logs and exec."""
        key = f"{namespace}/{name}"
        return next((w for w in self._workers.values() if w.key == key), None)

    @property
    def runtime(self) -> Runtime:
        """The node's runtime."""
        return self._services.runtime

    async def _recover(self) -> None:
        """What the disk remembers against what the runtime has: the rest was lost with the last boot."""
        self._checkpoints = read_checkpoints()
        listed = await self._services.runtime.call(List())
        self._found = listed.containers
        live = {sandbox.id for sandbox in listed.sandboxes}
        known = {c.sandbox for c in self._checkpoints.values()}
        for sandbox in live - known:
            await self._services.runtime.call(RemoveSandbox(id=sandbox))
        for container in self._found:
            if container.labels.get("uid") not in self._checkpoints and container.sandbox:
                await self._services.runtime.call(RemoveContainer(id=container.id))
        alive = {container.labels.get("uid") for container in self._found}
        for checkpoint in self._checkpoints.values():
            if checkpoint.sandbox not in live:
                checkpoint.ips, checkpoint.netns = [], ""
            if checkpoint.uid not in alive:
                checkpoint.restarts = {name: count + 1 for name, count in checkpoint.restarts.items()}
                self._lost |= {checkpoint.uid} if checkpoint.restarts else set()

    def _changed(self, key: Key | None) -> None:
        if key is None:
            self._listed()
            return
        pod = self._pods.objects.get(key)
        self._notice(f"{key[0]}/{key[1]}", pod)
        images = {c.image for p in self._pods.objects.values() for c in p.spec.containers if c.image}
        self._node.note_images(images)

    def _notice(self, key: str, pod: Pod | None) -> None:
        for uid, worker in list(self._workers.items()):
            if worker.key == key and (pod is None or pod.metadata.uid != uid):
                worker.update(None)
        if pod is None:
            return
        uid = pod.metadata.uid
        if uid in self._workers:
            self._workers[uid].update(pod)
            return
        checkpoint = self._checkpoints.pop(uid, None)
        worker = PodWorker(self._services, pod, checkpoint, lost=uid in self._lost)
        for container in self._found:
            if container.labels.get("uid") == uid:
                worker.containers.adopt(container)
        self._workers[uid] = worker
        worker.update(pod)
        self._tasks[uid] = asyncio.get_running_loop().create_task(self._work(uid, worker))

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.pop(uid, None)
            self._tasks.pop(uid, None)

    def _listed(self) -> None:
        """The list is complete: sandboxes of pods that are not in it belong to nobody."""
        for uid in list(self._checkpoints):
            checkpoint = self._checkpoints.pop(uid)
            task = asyncio.get_running_loop().create_task(self._bury(checkpoint))
            self._tasks[uid] = task

    async def _bury(self, checkpoint: Checkpoint) -> None:
        """A pod deleted while this node was down: DEL from the cache, then forget."""
        wait = 0.5
        while checkpoint.sandbox:
            try:
                await self._services.cni.delete(Call(container_id=checkpoint.sandbox, netns=checkpoint.netns))
                await self._services.runtime.call(RemoveSandbox(id=checkpoint.sandbox))
                break
            except (CniFailed, RuntimeRefused, OSError) as failed:
                log.warning("sandbox_not_removed", pod=checkpoint.name, error=str(failed))
                await asyncio.sleep(wait)
                wait = min(wait * 2, 10.0)
        checkpoint.forget()
        self._tasks.pop(checkpoint.uid, None)

    async def _follow_exits(self, watch: ExitWatch) -> None:
        async for ended in watch:
            for worker in self._workers.values():
                if worker.exited(ended):
                    break
            else:  # its pod may not have been listed yet
                self._found = [_ended(one, ended) if one.id == ended.id else one for one in self._found]
        raise ConnectionResetError("the runtime went away")


def _ended(container: Container, how: Exited) -> Container:
    return msgspec.structs.replace(container, pid=0, finished=how.finished, exit_code=how.exit_code)


def _api_service(spec: LabSpec) -> str:
    network = topology.SERVICE_NETWORK4 if spec.ipv4 else topology.SERVICE_NETWORK6
    return str(network[1])


async def _run(spec: LabSpec, one: NodeSpec, boot_id: str) -> None:
    config = credentials.client_config(spec, credentials.node_user(one.name))
    async with Client(config, user_agent=f"kubelet/{one.name}") as client:
        await Kubelet(spec, one, boot_id, client).run()


def main(spec: LabSpec, one: NodeSpec, boot_id: str) -> NoReturn:
    """In a forked child of the node's runtime: be the kubelet until killed."""
    configure("json", "info", sys.stdout)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(spec, one, boot_id))
    sys.exit(1)
