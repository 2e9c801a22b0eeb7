"""Readiness, liveness and startup probes: httpGet, tcpSocket, exec; kubelet's thresholds and periods.

Probes come from the node's network namespace, as a real kubelet's do.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from towpath.lab.kubelet_spec import Container, HttpGet, Pod, Probe, named_port
from towpath.lab.kubelet_status import ContainerState
from towpath.lab.runtime_api import Exec, Runtime, RuntimeRefused
from towpath.lab.runtime_session import run_to_end
from towpath.log import get_logger

if TYPE_CHECKING:
    from towpath.lab.kubelet_containers import Containers

log = get_logger(__name__)


_SOON, _OFTEN = 0.2, 0.1  # seconds, and of the time that has been waited


class Prober:
    """Keeps a container's ``ready`` and ``started`` true to its probes; kills what is not alive."""

    def __init__(self, runtime: Runtime, changed: Callable[[], None]) -> None:
        self._runtime, self._changed = runtime, changed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def reset(self, spec: Container, state: ContainerState) -> None:
        """A new process: without probes it is started and ready at once."""
        self._cancel(spec.name)
        state.started = spec.startup_probe is None
        state.ready = state.started and spec.readiness_probe is None

    def watch(
        self, pod: Pod, spec: Container, state: ContainerState, containers: "Containers", ips: list[str]
    ) -> None:
        """See to it that the probes of a running container run."""
        if not state.running:
            self._cancel(spec.name)
            return
        if spec.name in self._tasks:
            return
        if not state.started and spec.startup_probe is None:  # adopted from before a kubelet restart
            state.started = True
            state.ready = spec.readiness_probe is None or _was_ready(pod, spec)
        if spec.startup_probe or spec.readiness_probe or spec.liveness_probe:
            target = ips[0] if ips else "127.0.0.1"
            work = self._follow(pod, spec, state, containers, target)
            self._tasks[spec.name] = asyncio.create_task(work)

    def stop(self) -> None:
        """The pod ends: no more probing."""
        for name in list(self._tasks):
            self._cancel(name)

    def _cancel(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def _follow(
        self, pod: Pod, spec: Container, state: ContainerState, containers: "Containers", target: str
    ) -> None:
        """Startup first; then readiness and liveness side by side."""
        if spec.startup_probe and not state.started:
            if not await self._repeat(spec, state, spec.startup_probe, target, until_success=True):
                await self._kill(pod, spec, state, containers)
                return
            state.started, state.ready = True, spec.readiness_probe is None
            self._changed()
        jobs = []
        if spec.readiness_probe:
            jobs.append(self._readiness(spec, state, spec.readiness_probe, target))
        if spec.liveness_probe:
            jobs.append(self._liveness(pod, spec, state, containers, target))
        await asyncio.gather(*jobs)

    async def _readiness(self, spec: Container, state: ContainerState, probe: Probe, target: str) -> None:
        good = bad = 0
        await asyncio.sleep(probe.initial_delay_seconds or 0)
        clock = asyncio.get_running_loop().time
        began = clock()
        while state.running:
            if await self._probe(spec, state, probe, target):
                good, bad = good + 1, 0
            else:
                good, bad = 0, bad + 1
            ready = state.ready
            if good >= (probe.success_threshold or 1):
                ready = True
            elif bad >= (probe.failure_threshold or 3):
                ready = False
            if ready != state.ready:
                state.ready = ready
                self._changed()
            # Until ready: look more often, so that a lab does not wait out a ten-second period; but what is
            # late because the machine is busy is not to be made later by looking.
            period = float(probe.period_seconds or 10)
            began = clock() if state.ready else began
            soon = min(period, max(_SOON, _OFTEN * (clock() - began)))
            await asyncio.sleep(period if state.ready else soon)

    async def _liveness(
        self, pod: Pod, spec: Container, state: ContainerState, containers: "Containers", target: str
    ) -> None:
        assert spec.liveness_probe is not None  # noqa: S101 (the caller looked)
        await self._repeat(spec, state, spec.liveness_probe, target, until_success=False)
        if state.running:
            await self._kill(pod, spec, state, containers)

    async def _kill(self, pod: Pod, spec: Container, state: ContainerState, containers: "Containers") -> None:
        log.info("container_unhealthy", pod=pod.key, container=spec.name)
        await containers.kill(state, pod.spec.termination_grace_period_seconds or 0)

    async def _repeat(
        self, spec: Container, state: ContainerState, probe: Probe, target: str, *, until_success: bool
    ) -> bool:
        """Probe until the failure threshold is reached (False), or, if asked, until one succeeds (True)."""
        failures = 0
        await asyncio.sleep(probe.initial_delay_seconds or 0)
        while state.running and failures < (probe.failure_threshold or 3):
            if await self._probe(spec, state, probe, target):
                failures = 0
                if until_success:
                    return True
            else:
                failures += 1
            await asyncio.sleep(probe.period_seconds or 10)
        return False

    async def _probe(self, spec: Container, state: ContainerState, probe: Probe, target: str) -> bool:
        try:
            async with asyncio.timeout(probe.timeout_seconds or 1):
                if probe.http_get:
                    return await _http(spec, probe.http_get, target)
                if probe.tcp_socket:
                    host = probe.tcp_socket.host or target
                    return await _tcp(host, named_port(spec, probe.tcp_socket.port))
                if probe.exec:
                    return await self._exec(state, tuple(probe.exec.command or ()))
        except (OSError, TimeoutError, ValueError, LookupError, RuntimeRefused):
            return False
        return True

    async def _exec(self, state: ContainerState, argv: tuple[str, ...]) -> bool:
        null = os.open(os.devnull, os.O_RDWR)
        try:
            request = Exec(id=state.id, argv=argv)
            return await run_to_end(self._runtime.path, request, (null, null, null)) == 0
        finally:
            os.close(null)


def _was_ready(pod: Pod, spec: Container) -> bool:
    """What was reported last: a kubelet that restarts does not take its pods out of service."""
    statuses = pod.status.container_statuses or []
    return any(status.get("name") == spec.name and status.get("ready") for status in statuses)


async def _tcp(host: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True


async def _http(spec: Container, probe: HttpGet, target: str) -> bool:
    port = named_port(spec, probe.port)
    host = probe.host or target
    reader, writer = await asyncio.open_connection(host, port)
    try:
        shown = f"[{host}]" if ":" in host else host
        head = f"GET {probe.path or '/'} HTTP/1.1\r\nHost: {shown}:{port}\r\n"
        writer.write(f"{head}User-Agent: kube-probe/lab\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        return 200 <= int(line.split()[1]) < 400
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
