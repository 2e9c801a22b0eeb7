"""Containers of one pod: start, restart with backoff, stop with grace."""

import asyncio
import contextlib
import signal
import time
import uuid

from towpath.kube.errors import KubeError
from towpath.lab.kubelet_services import LOGS, VOLUMES, Services
from towpath.lab.kubelet_spec import Container, Pod
from towpath.lab.kubelet_status import ContainerState
from towpath.lab.kubelet_values import MissingReference, Values, expand
from towpath.lab.rootfs import Mount
from towpath.lab.runtime_api import (
    Container as RuntimeContainer,
)
from towpath.lab.runtime_api import (
    Echo,
    EchoPort,
    RemoveContainer,
    RuntimeRefused,
    Signal,
    Start,
)

# KEP-4603's shorter curve: first restart at once, then 1 s doubling to 60 s; two calm minutes reset it.
_BACKOFF_FIRST, _BACKOFF_MAX, _CALM = 1.0, 60.0, 120.0

# securityContext.capabilities.drop: what can be dropped from a container's bounding set, by number.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
    "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK",
    "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
    "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE",
    "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
    "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


def dropped(container: Container) -> tuple[int, ...]:
    """Numbers of the capabilities the container gives up: ``drop`` (ALL included) less ``add``."""
    wanted = container.security_context.capabilities if container.security_context else None
    if wanted is None:
        return ()
    drop = {name.upper().removeprefix("CAP_") for name in wanted.drop or []}
    add = {name.upper().removeprefix("CAP_") for name in wanted.add or []}
    return tuple(
        number
        for number, name in enumerate(CAPABILITIES)
        if name not in add and (name in drop or "ALL" in drop)
    )


def log_folder(pod: Pod) -> str:
    """Where the pod's logs are, as the kubelet lays them out."""
    return f"{LOGS}/{pod.metadata.namespace}_{pod.metadata.name}_{pod.metadata.uid}"


class Containers:
    """The processes of one pod. States are shared with the worker, which reports them."""

    def __init__(self, services: Services, pod: Pod) -> None:
        self._services = services
        self._backoff: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._stopped = {c.name: asyncio.Event() for c in [*pod.spec.containers, *pod.init_containers]}
        self.states = {c.name: ContainerState(name=c.name) for c in pod.spec.containers}
        self.inits = {c.name: ContainerState(name=c.name) for c in pod.init_containers}
        for state in self.inits.values():
            state.waiting = "PodInitializing"

    def all(self) -> list[ContainerState]:
        """Init containers first."""
        return [*self.inits.values(), *self.states.values()]

    def by_id(self, container_id: str) -> ContainerState | None:
        """The state whose present process has this id."""
        return next((s for s in self.all() if s.id == container_id), None)

    def adopt(self, found: RuntimeContainer) -> None:
        """A container that runs (or ran) already, from the runtime's list after a kubelet restart."""
        kind = self.inits if found.labels.get("init") else self.states
        state = kind.get(found.labels.get("container", ""))
        if state is None or (state.id and state.began > found.started):
            return
        state.id, state.began = found.id, found.started
        state.restarts = int(found.labels.get("restart", "0"))
        state.running, state.ended, state.exit_code = found.pid != 0, found.finished, found.exit_code
        state.waiting = ""

    def lost(self) -> None:
        """The node lost power: what must not run twice has failed."""
        for state in self.states.values():
            state.id = state.id or "lost"
            self.ended(state, 137, time.time())

    def ended(self, state: ContainerState, exit_code: int, when: float) -> None:
        """Note an exit."""
        state.running, state.ready, state.started = False, False, False
        state.exit_code, state.ended, state.waiting = exit_code, when, ""
        self._stopped[state.name].set()

    def due(self, state: ContainerState) -> float:
        """Seconds until the container may start again; 0 means now. Sets its waiting reason."""
        remaining = self._not_before.get(state.name, 0.0) - time.monotonic()
        if remaining <= 0:
            return 0.0
        if state.id:
            state.waiting = "CrashLoopBackOff"
            state.message = f"back-off {self._backoff.get(state.name, 0.0):.0f}s restarting failed container"
        return remaining

    async def start(self, pod: Pod, spec: Container, sandbox: str, ips: list[str]) -> bool:
        """Start a container (again); False, with the reason in its state, when it cannot be."""
        init = spec.name in self.inits
        state = (self.inits if init else self.states)[spec.name]
        host_ips = self._services.host_ips
        values = Values(
            self._services.client,
            pod,
            ips,
            host_ips,
            {**self._services.environment, "HOSTNAME": hostname(pod)},
        )
        try:
            env = await values.environment(spec)
            mounts = await values.mounts(spec, VOLUMES / pod.metadata.uid / "volumes")
            mounts += etc_files(pod, ips)
        except (MissingReference, OSError, KubeError) as missing:
            state.waiting, state.message = "CreateContainerConfigError", str(missing)
            self._delay(state, again=True)
            return False
        self._note_restart(state)
        command = [*(spec.command or []), *(spec.args or [])]
        request = Start(
            id=uuid.uuid4().hex * 2,
            sandbox=sandbox,
            hostname="" if pod.spec.host_network else hostname(pod),
            image=spec.image,
            argv=tuple(expand(word, env) for word in command),
            env=env,
            cwd=spec.working_dir or "/",
            mounts=mounts,
            read_only=bool(spec.security_context and spec.security_context.read_only_root_filesystem),
            drop=dropped(spec),
            echo=None if command else echo(pod, spec),
            log=f"{log_folder(pod)}/{spec.name}/{state.restarts}.log",
            labels={
                "uid": pod.metadata.uid,
                "namespace": pod.metadata.namespace,
                "pod": pod.metadata.name,
                "owner": owner(pod),
                "container": spec.name,
                "restart": str(state.restarts),
                **({"init": "1"} if init else {}),
            },
        )
        previous, state.id = state.id, request.id
        before = state.ended
        self._stopped[state.name].clear()
        answer = await self._services.runtime.call(request)
        state.began = answer.started
        state.waiting, state.message = "", ""
        if state.ended == before:  # else word of its end was here before the answer, on the other connection
            state.running, state.ended, state.exit_code = True, 0.0, 0
        if previous:
            with contextlib.suppress(RuntimeRefused):
                await self._services.runtime.call(RemoveContainer(id=previous))
        return True

    def _note_restart(self, state: ContainerState) -> None:
        if not state.id:
            return
        if state.ended:
            state.last = state.terminated()
        state.restarts += 1
        self._delay(state, again=False)

    def _delay(self, state: ContainerState, *, again: bool) -> None:
        """Set when the next start may be: ``again`` counts from now, else from the process's end."""
        calm = state.running or (state.ended - state.began) > _CALM
        before = self._backoff.get(state.name, 0.0)
        wait = _BACKOFF_FIRST if calm and not again else min(_BACKOFF_MAX, before * 2 or _BACKOFF_FIRST)
        self._backoff[state.name] = wait
        self._not_before[state.name] = time.monotonic() + wait

    async def kill(self, state: ContainerState, grace: float) -> None:
        """SIGTERM, SIGKILL after ``grace`` seconds; returns when the process is gone."""
        await self._signal(state, signal.SIGTERM if grace > 0 else signal.SIGKILL)
        try:
            async with asyncio.timeout(grace):
                await self._stopped[state.name].wait()
        except TimeoutError:
            await self._signal(state, signal.SIGKILL)
            await self._stopped[state.name].wait()

    async def forget(self) -> None:
        """Have the runtime remove them all, with whatever still runs. Raises RuntimeRefused, OSError."""
        for state in self.all():
            if state.id:
                await self._services.runtime.call(RemoveContainer(id=state.id))

    async def _signal(self, state: ContainerState, number: int) -> None:
        with contextlib.suppress(RuntimeRefused):
            await self._services.runtime.call(Signal(id=state.id, signal=number))


def hostname(pod: Pod) -> str:
    """The pod's host name."""
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def etc_files(pod: Pod, ips: list[str]) -> list[Mount]:
    """The kubelet's /etc/hosts and /etc/hostname of a pod that has a network of its own. Raises OSError."""
    if pod.spec.host_network:
        return []
    folder = VOLUMES / pod.metadata.uid / "etc"
    folder.mkdir(parents=True, exist_ok=True)
    name = hostname(pod)
    local = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts = ["# Kubernetes-managed hosts file.", *local, *(f"{ip}\t{name}" for ip in ips)]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    (folder / "hostname").write_text(name + "\n")
    return [Mount(source=str(folder / file), target=f"/etc/{file}") for file in ("hosts", "hostname")]


def owner(pod: Pod) -> str:
    """``namespace/name`` of the controller, "" for a pod without one."""
    for reference in pod.metadata.owner_references or []:
        if reference.controller:
            return f"{pod.metadata.namespace}/{reference.name}"
    return ""


def echo(pod: Pod, spec: Container) -> Echo:
    """The workload of a container without a command."""
    ports = tuple(EchoPort(port=p.container_port, protocol=p.protocol) for p in spec.ports or [])
    return Echo(identity=pod.key, ports=ports)
