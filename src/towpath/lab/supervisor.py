"""Pid 1 of a lab: builds the machine room, forks its long-lived processes, reaps, restarts, takes orders.

Single-threaded and without asyncio: it forks and changes namespaces all day. What every child needs is
imported once here, so that a child costs a fork (milliseconds) and not an interpreter's start. Verbs are
carried out by one forked child a connection (``control``); only what concerns processes comes back to this
loop, by way of ``/lab/supervisor.sock``.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from towpath.kernel.linux import LinuxKernel
from towpath.lab import (
    apiprocess,
    bootstrap,
    control,
    credentials,
    kubelet,  # noqa: F401 (imported for the children)
    namespaces,
    node,
    rootfs,
    rundir,
    topology,
    workload,
)
from towpath.lab.launch import DETACH, INSTALL, Inherited
from towpath.lab.matrix import OUTSIDE_PORT
from towpath.lab.orders import ORDERS, OUTSIDE, NodeProcess, Order, Report
from towpath.lab.rootfs import INSTALLING, STATE
from towpath.lab.runtime_api import Echo, EchoPort
from towpath.lab.runtime_process import guarded
from towpath.lab.topology import LabSpec, NodeSpec
from towpath.model.op import DelLink, Op


class Supervisor:
    """The processes of one lab."""

    def __init__(self, spec: LabSpec, inherited: Inherited) -> None:
        self._spec, self._inherited = spec, inherited
        self._selector = selectors.DefaultSelector()
        self._nodes: dict[str, NodeProcess] = {}
        self._netns: dict[str, int] = {}
        self._outside = -1
        self._api = apiprocess.of(spec, inherited.api)
        self._launcher: socket.socket | None = socket.socket(fileno=inherited.launcher)
        self._control = socket.socket(fileno=inherited.control)
        self._own_pid_ns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._deaths: dict[int, Callable[[], None]] = {}

    def start(self) -> None:
        """Everything up to a cluster that gets itself ready; ``run`` then keeps it."""
        with contextlib.closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply(topology.root_ops(self._spec))
            self._start_outside(kernel)
            self._api.listen_inside()
            self._fork_api()
            for one in self._spec.nodes:
                self._boot(one, kernel)
        self._fork(lambda: bootstrap.run(self._spec, self._inherited.launcher, self._api.host_port))

    def run(self) -> NoReturn:
        """Serve for ever."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
        orders = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        orders.bind(str(ORDERS))
        orders.listen(64)
        watched: list[tuple[Any, Callable[[], None]]] = [
            (wake_read, lambda: self._woken(wake_read)),
            (self._control, self._accept_verb),
            (orders, lambda: self._accept_order(orders)),
            (self._launcher, self._hear_launcher),
            (self._inherited.keeper_gone, lambda: os._exit(0)),
        ]
        for source, action in watched:
            self._selector.register(source, selectors.EVENT_READ, action)
        self._reap()
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _start_outside(self, kernel: LinuxKernel) -> None:
        self._outside = namespaces.new_network_namespace()
        root, host = topology.outside_ops(self._spec)
        kernel.apply(root, self._outside)
        with namespaces.network_namespace(self._outside):
            _apply_here(host)
        OUTSIDE.touch()
        namespaces.bind(f"/proc/self/fd/{self._outside}", str(OUTSIDE))
        self._fork_echo()

    def _fork_echo(self) -> None:
        """The outside host answers, so that pods can be seen to reach it, and as whom."""

        def answer() -> None:
            namespaces.setns(self._outside, namespaces.CLONE_NEWNET)
            ports = tuple(EchoPort(port=OUTSIDE_PORT, protocol=p) for p in ("TCP", "UDP"))
            workload.serve(Echo(identity="outside", ports=ports))

        self._fork(answer, self._fork_echo)

    def _boot(self, one: NodeSpec, kernel: LinuxKernel, boots: int = 1) -> None:
        """Cable, namespaces, runtime: what happens when a node is switched on."""
        netns = namespaces.new_network_namespace()
        kernel.apply(topology.cable_ops(self._spec, one), netns)
        with namespaces.network_namespace(netns):
            _apply_here(topology.node_ops(self._spec, one))
        boot_id = str(uuid.uuid4())
        namespaces.unshare(namespaces.CLONE_NEWPID)
        pid = self._fork(
            lambda: node.main(self._spec, one, boot_id, netns), lambda: self._node_died(one.name)
        )
        namespaces.setns(self._own_pid_ns, namespaces.CLONE_NEWPID)
        os.close(netns)
        self._nodes[one.name] = NodeProcess(
            name=one.name, pid=pid, boot_id=boot_id, booted=time.time(), boots=boots
        )

    def _node_died(self, name: str) -> None:
        """A node that crashes is switched on again."""
        self._power_cycle(self._spec.node(name))

    def _power_cycle(self, one: NodeSpec) -> None:
        before = self._nodes[one.name]
        self._deaths.pop(before.pid, None)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(before.pid, signal.SIGKILL)
            os.waitpid(before.pid, 0)
        (STATE / "nodes" / one.name / "runtime.sock").unlink(missing_ok=True)
        with contextlib.closing(LinuxKernel(nft=False)) as kernel:
            # The kernel takes its time over dead namespaces; the port must be free at once.
            kernel.apply([DelLink(name=one.port)])
            self._boot(one, kernel, before.boots + 1)

    def _fork_api(self) -> None:
        self._api.pid = self._fork(self._api.run, self._api_died)

    def _api_died(self) -> None:
        self._api.pid = 0
        if not self._api.stopped:
            self._fork_api()

    def _fork(self, child: Callable[[], None], on_death: Callable[[], None] | None = None) -> int:
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            guarded(child)
        if on_death:
            self._deaths[pid] = on_death
        return pid

    def _woken(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if action := self._deaths.pop(pid, None):
                action()

    def _hear_launcher(self) -> None:
        """``lab up`` lets go of a lab that is ready; when it goes without a word, so does the lab."""
        assert self._launcher is not None  # noqa: S101 (registered only while it is there)
        try:
            heard = self._launcher.recv(64)
        except OSError:
            heard = b""
        if heard == INSTALL:
            INSTALLING.touch()
            return
        if heard != DETACH:
            os._exit(0)
        self._selector.unregister(self._launcher)
        self._launcher.close()
        self._launcher = None

    def _accept_verb(self) -> None:
        connection, _ = self._control.accept()
        self._fork(lambda: control.serve(connection, self._spec))
        connection.close()

    def _accept_order(self, orders: socket.socket) -> None:
        connection, _ = orders.accept()
        with connection:
            try:
                order = msgspec.json.decode(connection.recv(4096), type=Order)
            except (OSError, msgspec.DecodeError):
                return  # whoever asked is gone, killed between two calls
            try:
                report = self._carry_out(order)
            except (OSError, rundir.LabError) as refused:
                report = Report(error=str(refused))
            with contextlib.suppress(OSError):
                connection.send(msgspec.json.encode(report))
            if order.op == "down":
                os._exit(0)

    def _carry_out(self, order: Order) -> Report:
        match order.op:
            case "reboot":
                self._power_cycle(self._spec.node(order.node))
            case "api-down":
                self._api.stop()
            case "api-up":
                if self._api.stopped:
                    self._api.allow()
                    self._fork_api()
            case "down" | "list":
                pass
            case other:
                return Report(error=f"unknown order {other!r}")
        return Report(nodes=list(self._nodes.values()), api=self._api.pid, spec=self._spec)


def _apply_here(ops: list[Op]) -> None:
    with contextlib.closing(LinuxKernel(nft=False)) as kernel:
        kernel.apply(ops)


def main(spec: LabSpec, inherited: Inherited) -> NoReturn:
    """The supervisor's life. Never returns."""
    code = 1
    try:
        namespaces.die_with_parent()
        namespaces.set_name("lab-supervisor")
        rootfs.build(inherited.folder)
        socket.sethostname(f"lab-{spec.name}")
        for one in spec.nodes:
            (STATE / "nodes" / one.name / "disk").mkdir(parents=True)
        apiprocess.prepare(spec)
        credentials.create(spec)
        gc.collect()
        gc.freeze()  # children share what was imported here; collecting it would unshare every page
        supervisor = Supervisor(spec, inherited)
        supervisor.start()
        supervisor.run()
    except BaseException as failed:
        sys.excepthook(*sys.exc_info())
        with contextlib.suppress(OSError):
            os.write(inherited.launcher, rundir.as_line({"error": f"lab start: {failed}"}))
    finally:
        os._exit(code)
