"""One pod's worker: level-triggered, it brings what runs to what the API says, until the pod is gone."""

import asyncio
import contextlib
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable

from towpath.kube.errors import ApiRefused, Conflict, KubeError, NotFound
from towpath.kube.kinds import PODS
from towpath.lab.kubelet_cni import CniFailed, addresses, pod_call
from towpath.lab.kubelet_containers import Containers, log_folder
from towpath.lab.kubelet_probe import Prober
from towpath.lab.kubelet_services import VOLUMES, Checkpoint, Services
from towpath.lab.kubelet_spec import Container, Pod
from towpath.lab.kubelet_status import ContainerState, PodState, phase, status
from towpath.lab.runtime_api import Exited, RemoveSandbox, RunSandbox, RuntimeRefused
from towpath.log import get_logger

log = get_logger(__name__)

_RETRY_FIRST, _RETRY_MAX = 0.5, 10.0
_AGAIN = 1.0  # seconds, after a failure that nobody foresaw
_RESYNC = 60.0


class PodWorker:
    """``pod`` is the newest object, ``gone`` whether the API has let go of it."""

    def __init__(
        self, services: Services, pod: Pod, checkpoint: Checkpoint | None, *, lost: bool = False
    ) -> None:
        """``lost``: it ran before this boot."""
        self._services = services
        self.pod, self.gone = pod, False
        meta = pod.metadata
        self.checkpoint = checkpoint or Checkpoint(uid=meta.uid, namespace=meta.namespace, name=meta.name)
        self.containers = Containers(services, pod)
        self._prober = Prober(services.runtime, self.poke)
        self._dirty, self._ending, self._report_due = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._sent: object = None
        self._retry = _RETRY_FIRST
        self._reason = ""
        for name, count in self.checkpoint.restarts.items():
            for state in self.containers.all():
                if state.name == name:
                    state.restarts = count
        if lost and pod.spec.restart_policy == "Never":
            self.containers.lost()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return self.pod.key

    def update(self, pod: Pod | None) -> None:
        """The API's newest word; None when the pod is no longer there."""
        if pod is None:
            self.gone = True
        else:
            self.pod = pod
        if self.gone or self.pod.metadata.deletion_timestamp:
            self._ending.set()
        self.poke()

    def poke(self) -> None:
        """Have the worker look again."""
        self._dirty.set()

    def exited(self, exit_: Exited) -> bool:
        """Take note of an exit; False if the container is none of ours."""
        state = self.containers.by_id(exit_.id)
        if state is None:
            return False
        self.containers.ended(state, exit_.exit_code, exit_.finished)
        self.poke()
        return True

    async def run(self) -> None:
        """Until the pod has ended and is deleted. What failed may be over: a pod whose worker gave up would
        never end.
        """
        while True:
            try:
                return await self._work()
            except Exception:
                log.exception("pod_worker_failed", pod=self.key)
                await asyncio.sleep(_AGAIN)

    async def _work(self) -> None:
        reporter = asyncio.create_task(self._keep_reporting())
        try:
            while not self._ending.is_set():
                self._dirty.clear()
                pause = await self._sync_unless_ending()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._dirty.wait()
            await self._end()
        finally:
            self._prober.stop()
            reporter.cancel()

    async def _sync_unless_ending(self) -> float:
        """One round; a deletion interrupts it, even in the middle of a CNI ADD (whose process is killed)."""
        sync = asyncio.create_task(self._sync())
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait({sync, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not sync.done():
            sync.cancel()
            await asyncio.wait({sync})  # however it ends: what it began, the end of the pod undoes
            return 0.0
        try:
            pause = sync.result()
            self._retry = _RETRY_FIRST
        except (KubeError, CniFailed, RuntimeRefused, OSError) as failed:
            log.warning("pod_sync_failed", pod=self.key, error=str(failed))
            pause = self._retry
            self._retry = min(self._retry * 2, _RETRY_MAX)
        self._report_due.set()
        return pause

    async def _sync(self) -> float:
        """Bring the pod one step or all the way; returns seconds until another look is due."""
        if self.pod.finished or phase(self.pod, self._state()) in ("Succeeded", "Failed"):
            await self._remove_sandbox()
            return _RESYNC
        if not self.pod.spec.host_network and not self.checkpoint.ips:
            await self._services.network_ready.wait()
            await self._make_sandbox()
        for spec in self.pod.init_containers:
            state = self.containers.inits[spec.name]
            if not state.running and state.ended and state.exit_code == 0:
                continue
            return await self._step(spec, state, restart=self.pod.spec.restart_policy != "Never")
        return min([await self._keep(spec) for spec in self.pod.spec.containers], default=_RESYNC)

    async def _keep(self, spec: Container) -> float:
        state = self.containers.states[spec.name]
        policy = self.pod.spec.restart_policy
        again = policy == "Always" or (policy == "OnFailure" and state.exit_code != 0)
        pause = await self._step(spec, state, restart=again)
        self._prober.watch(self.pod, spec, state, self.containers, self._ips())
        return pause

    async def _step(self, spec: Container, state: ContainerState, *, restart: bool) -> float:
        """Start the container if it should run and does not."""
        if state.running or (state.ended and not restart):
            return _RESYNC
        if wait := self.containers.due(state):
            return wait
        if not await self.containers.start(self.pod, spec, self._sandbox(), self._ips()):
            return self.containers.due(state)
        self.checkpoint.restarts[spec.name] = state.restarts
        self.checkpoint.save()
        self._prober.reset(spec, state)
        self._event("Normal", "Started", f"Started container {spec.name}")
        return _RESYNC

    def _sandbox(self) -> str:
        return "" if self.pod.spec.host_network else self.checkpoint.sandbox

    def _ips(self) -> list[str]:
        return self._services.host_ips if self.pod.spec.host_network else self.checkpoint.ips

    async def _make_sandbox(self) -> None:
        """Namespace and CNI ADD; on failure DEL and an Event, as containerd and the kubelet do it."""
        if self.checkpoint.sandbox:  # left by a failed or interrupted try
            await self._remove_sandbox()
        sandbox = uuid.uuid4().hex * 2
        labels = {"uid": self.pod.metadata.uid, "namespace": self.checkpoint.namespace}
        labels["name"] = self.checkpoint.name
        self.checkpoint.sandbox = sandbox
        self.checkpoint.save()
        slow = asyncio.get_running_loop().call_later(self._services.patience, self._report_due.set)
        try:
            answer = await self._services.runtime.call(RunSandbox(id=sandbox, labels=labels))
            self.checkpoint.netns = answer.netns
            result = await self._services.cni.add(pod_call(self.pod, sandbox, answer.netns))
        except (CniFailed, RuntimeRefused) as failed:
            message = f'failed to setup network for sandbox "{sandbox[:13]}…": {failed}'
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
            with contextlib.suppress(CniFailed, RuntimeRefused):
                await self._remove_sandbox()
            raise
        finally:
            slow.cancel()
        self.checkpoint.ips = addresses(result)
        self.checkpoint.save()

    async def _remove_sandbox(self) -> None:
        """CNI DEL (from the cache), then the namespace. Idempotent. Raises CniFailed, RuntimeRefused."""
        if not self.checkpoint.sandbox:
            return
        call = pod_call(self.pod, self.checkpoint.sandbox, self.checkpoint.netns)
        await self._services.cni.delete(call)
        await self._services.runtime.call(RemoveSandbox(id=self.checkpoint.sandbox))
        self.checkpoint.sandbox = self.checkpoint.netns = ""
        self.checkpoint.save()

    async def _end(self) -> None:
        """Stop everything with grace, undo the network, let the API forget the pod."""
        meta = self.pod.metadata
        grace = meta.deletion_grace_period_seconds
        if grace is None:
            grace = 1 if self.gone else self.pod.spec.termination_grace_period_seconds or 0
        running = [state for state in self.containers.all() if state.running]
        if running:
            self._event("Normal", "Killing", f"Stopping {len(running)} container(s)")
        self._prober.stop()
        await asyncio.gather(*(self.containers.kill(state, grace) for state in running))
        await self._until_done(self._remove_sandbox, "FailedKillPod")
        await self._until_done(self.containers.forget, "FailedKillPod")
        if not self.gone:
            await self._until_done(self._final_words, "FailedKillPod")
        self.checkpoint.forget()
        shutil.rmtree(VOLUMES / meta.uid, ignore_errors=True)
        shutil.rmtree(log_folder(self.pod), ignore_errors=True)

    async def _final_words(self) -> None:
        await self._report()
        meta = self.pod.metadata
        with contextlib.suppress(NotFound, Conflict):  # Conflict: another pod of this name is there by now
            await self._services.client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_seconds=0)

    async def _until_done(self, action: Callable[[], Awaitable[None]], reason: str) -> None:
        """Deletion may not give up: what a failed DEL leaves is somebody's address."""
        wait = _RETRY_FIRST
        while True:
            try:
                return await action()
            except (CniFailed, RuntimeRefused, KubeError, OSError) as failed:
                log.warning("pod_end_delayed", pod=self.key, error=str(failed))
                self._event("Warning", reason, f"error killing pod: {failed}")
                await asyncio.sleep(wait)
                wait = min(wait * 2, _RETRY_MAX)

    def _state(self) -> PodState:
        return PodState(
            host_ips=self._services.host_ips,
            pod_ips=self._ips() if self.pod.spec.host_network or self.checkpoint.ips else [],
            containers=self.containers.states,
            inits=self.containers.inits,
            sandbox=bool(self.pod.spec.host_network or self.checkpoint.ips),
        )

    async def _keep_reporting(self) -> None:
        """Write the status when it changed. A deaf API server delays reports, never containers."""
        while True:
            await self._report_due.wait()
            self._report_due.clear()
            try:
                await self._report()
            except NotFound:
                continue
            except KubeError as failed:
                log.info("status_not_reported", pod=self.key, error=str(failed))
                await asyncio.sleep(1.0)
                self._report_due.set()

    async def _report(self) -> None:
        fresh = status(self.pod, self._state(), time.time())
        if fresh == self._sent or self.gone or self.pod.finished:
            return
        meta = self.pod.metadata
        body = {"metadata": {"uid": meta.uid}, "status": fresh}
        try:
            await self._services.client.patch(PODS, meta.name, body, meta.namespace, subresource="status")
        except Conflict:
            return  # the name belongs to another pod now
        except ApiRefused as refused:
            log.error("status_refused", pod=self.key, error=str(refused))
            raise
        self._sent = fresh

    def _event(self, type_: str, reason: str, message: str) -> None:
        meta = self.pod.metadata
        about = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        }
        self._services.recorder.record(about, type_, reason, message)
