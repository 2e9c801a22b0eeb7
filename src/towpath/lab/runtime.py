"""The lab's container runtime: pid 1 of a node, single-threaded, survives its kubelet as containerd does.

Only what a runtime does: network namespaces that outlive processes (bound to files), containers as processes
in namespaces of their own (PID, mount, UTS), their logs in the CRI format, their exit codes. It knows no
Kubernetes. Everything on a node descends from this process and is in its PID namespace, so that its death
is the node's: that is how ``reboot`` pulls the plug.
"""

import os
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from towpath.lab import namespaces, runtime_process
from towpath.lab.runtime_api import (
    PACKET,
    REQUEST,
    Answer,
    Container,
    Exec,
    Exited,
    List,
    RemoveContainer,
    RemoveSandbox,
    Request,
    RunSandbox,
    Sandbox,
    Signal,
    Start,
    Watch,
)
from towpath.lab.runtime_log import LogPipe

NETNS_DIR = Path("/run/netns")
_BEGINS_WITHIN = 30.0  # seconds; after them a start that hangs no longer holds up the node


def _await_end(pipe: int) -> None:
    """Started means that the program runs (runc's way), and of the echo workload that it listens: pods
    without a readiness probe are Ready then, and whoever waits for that expects an answer.
    """
    select.select([pipe], [], [], _BEGINS_WITHIN)
    os.close(pipe)


class _Running(msgspec.Struct, kw_only=True):
    """A container's process as the runtime holds it."""

    spec: Start
    pid: int
    started: float
    finished: float = 0.0
    exit_code: int = 0


class Runtime:
    """Sandboxes, containers and the event loop that serves them."""

    def __init__(self, listener: socket.socket, respawn: Callable[[int], bool]) -> None:
        """``respawn(pid)`` is asked about each ended process; True means it was the kubelet."""
        self._listener = listener
        self._respawn = respawn
        self._selector = selectors.DefaultSelector()
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, _Running] = {}
        self._by_pid: dict[int, str] = {}
        self._execs: dict[int, tuple[str, socket.socket]] = {}
        self._watchers: set[socket.socket] = set()
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self) -> None:
        """Run for ever."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._woken(wake_read))
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _woken(self, fd: int) -> None:
        with suppress(BlockingIOError):
            os.read(fd, 4096)
        self._reap()

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(connection, PACKET, 3)
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._hang_up(connection)
            return
        try:
            answer = self._answer(REQUEST.decode(packet), connection, fds)
        except (OSError, msgspec.DecodeError, KeyError) as refused:
            answer = Answer(error=f"{type(refused).__name__}: {refused}")
        finally:
            for fd in fds:
                os.close(fd)
        self._send(connection, answer)
        self._reap()

    def _hang_up(self, connection: socket.socket) -> None:
        self._watchers.discard(connection)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        for pid, (_, waiting) in list(self._execs.items()):
            if waiting is connection:  # nobody is there to see the end of it
                del self._execs[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        connection.close()

    def _send(self, connection: socket.socket, message: Answer | Exited) -> None:
        try:
            connection.send(msgspec.json.encode(message))
        except OSError:
            self._hang_up(connection)

    def _answer(self, request: Request, connection: socket.socket, fds: list[int]) -> Answer:
        match request:
            case RunSandbox():
                return Answer(netns=self._run_sandbox(request))
            case RemoveSandbox(id=sandbox):
                self._remove_sandbox(sandbox)
            case Start():
                running = self._start(request)
                return Answer(pid=running.pid, started=running.started)
            case Signal(id=name, signal=number):
                running = self._containers[name]
                if running.pid:
                    os.kill(running.pid, number)
            case RemoveContainer(id=name):
                self._remove_container(name)
            case Exec():
                return Answer(pid=self._exec(request, connection, fds))
            case List():
                return self._list()
            case Watch():
                self._watchers.add(connection)
        return Answer()

    def _run_sandbox(self, request: RunSandbox) -> str:
        NETNS_DIR.mkdir(parents=True, exist_ok=True)
        path = NETNS_DIR / request.id
        path.touch(exist_ok=False)
        fd = namespaces.new_network_namespace()
        try:
            namespaces.bind(f"/proc/self/fd/{fd}", str(path))
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        self._sandboxes[request.id] = Sandbox(id=request.id, netns=str(path), labels=request.labels)
        return str(path)

    def _remove_sandbox(self, sandbox: str) -> None:
        for name in [n for n, c in self._containers.items() if c.spec.sandbox == sandbox and sandbox]:
            self._remove_container(name)
        if self._sandboxes.pop(sandbox, None) is not None:
            path = NETNS_DIR / sandbox
            namespaces.umount(str(path))
            path.unlink()

    def _start(self, request: Start) -> _Running:
        if request.id in self._containers:
            raise KeyError(f"container {request.id} exists")
        sandbox = self._sandboxes[request.sandbox] if request.sandbox else None
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        begun_read, begun_write = os.pipe2(os.O_CLOEXEC)
        netns = sandbox.netns if sandbox else ""
        try:
            pid = self._fork(lambda: runtime_process.run(request, netns, out_write, err_write, begun_write))
        except OSError:
            for fd in (out_read, err_read, begun_read):
                os.close(fd)
            raise
        finally:
            for fd in (out_write, err_write, begun_write):
                os.close(fd)
        running = _Running(spec=request, pid=pid, started=time.time())
        self._containers[request.id] = running
        self._by_pid[pid] = request.id
        for fd, stream in ((out_read, "stdout"), (err_read, "stderr")):
            self._follow_log(LogPipe(fd, stream, Path(request.log)))
        _await_end(begun_read)
        return running

    def _follow_log(self, pipe: LogPipe) -> None:
        def readable() -> None:
            if not pipe.pump():
                self._selector.unregister(pipe.fd)
                pipe.close()

        self._selector.register(pipe.fd, selectors.EVENT_READ, readable)

    def _fork(self, child: Callable[[], None]) -> int:
        """A child that is pid 1 of a PID namespace of its own: killing it kills its descendants."""
        namespaces.unshare(namespaces.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            runtime_process.guarded(child)
        namespaces.setns(self._own_pid_ns, namespaces.CLONE_NEWPID)
        return pid

    def _exec(self, request: Exec, connection: socket.socket, fds: list[int]) -> int:
        netns, into = "", 0
        if request.network:
            netns = self._sandboxes[request.id].netns
        elif request.id:
            into = self._containers[request.id].pid
            if not into:
                raise KeyError(f"container {request.id} is not running")
        if len(fds) != 3:
            raise KeyError(f"an exec needs three descriptors, not {len(fds)}")
        pid = os.fork()
        if pid == 0:
            runtime_process.guarded(lambda: runtime_process.run_exec(request, into, netns, fds))
        self._execs[pid] = (request.id, connection)
        return pid

    def _remove_container(self, name: str) -> None:
        running = self._containers.get(name)
        if running is None:
            return
        if running.pid:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
            pid, status = os.waitpid(running.pid, 0)
            self._ended(pid, status)
        del self._containers[name]

    def _list(self) -> Answer:
        containers = [
            Container(
                id=name,
                sandbox=c.spec.sandbox,
                pid=c.pid,
                started=c.started,
                finished=c.finished,
                exit_code=c.exit_code,
                labels=c.spec.labels,
            )
            for name, c in self._containers.items()
        ]
        return Answer(sandboxes=list(self._sandboxes.values()), containers=containers)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else 128 - code
        now = time.time()
        if name := self._by_pid.pop(pid, ""):
            running = self._containers[name]
            running.pid, running.finished, running.exit_code = 0, now, code
            for watcher in list(self._watchers):
                self._send(watcher, Exited(id=name, exit_code=code, finished=now))
        elif pid in self._execs:
            name, connection = self._execs.pop(pid)
            self._send(connection, Exited(id=name, exit_code=code, finished=now))
        else:
            self._respawn(pid)
