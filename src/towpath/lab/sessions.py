"""Verbs that use the caller's terminal or files, which come as descriptors: exec, pcap."""

import fcntl
import os
import pty
import selectors
import signal
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from towpath.lab import capture, namespaces
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.lifecycle import listed
from towpath.lab.orders import OUTSIDE, node_netns
from towpath.lab.rootfs import STATE
from towpath.lab.rundir import LabError
from towpath.lab.runtime_api import MESSAGE, PACKET, Container, Exec, Exited, RuntimeRefused, call, connect
from towpath.lab.runtime_process import guarded
from towpath.lab.targets import Target, find_target

_PIECE = 64 * 1024


def exec_(conversation: Conversation) -> dict[str, Any]:
    """Run a command in a pod, on a node, or on the outside host; its stdio is the caller's."""
    argv = tuple(str(word) for word in conversation.argument("command"))
    if not argv or len(conversation.fds) != 3:
        raise LabError("exec needs a command and three descriptors")
    target = find_target(conversation.spec, str(conversation.argument("target")))
    tty = bool(conversation.argument("tty", False))
    ours, fds = -1, conversation.fds
    if tty:
        ours, theirs = pty.openpty()
        fds = [theirs] * 3
    env = {"TERM": str(conversation.argument("term", "xterm"))} if tty else {}
    process = _start(target, argv, env, fds, tty=tty, container=conversation.argument("container", ""))
    if tty:
        os.close(fds[0])
    return {"exit": _Pump(conversation, ours, process).run()}


class _Process:
    """A started process: a descriptor that turns readable when it ends, and how to learn its exit code."""

    def __init__(self, fd: int, exit_code: Callable[[], int]) -> None:
        self.fd, self.exit_code = fd, exit_code


def _start(
    target: Target, argv: tuple[str, ...], env: dict[str, str], fds: list[int], *, tty: bool, container: str
) -> _Process:
    if target.kind == "outside":
        return _start_outside(argv, env, fds, tty=tty)
    connection = connect(STATE / "nodes" / target.node / "runtime.sock")
    name = _container_of(target, container).id if target.kind == "pod" else ""
    try:
        call(connection, Exec(id=name, argv=argv, env=env, tty=tty), fds)
    except RuntimeRefused as refused:
        raise LabError(f"exec in {target.name}: {refused}") from refused

    def exit_code() -> int:
        packet = connection.recv(PACKET)
        message = MESSAGE.decode(packet) if packet else None
        return message.exit_code if isinstance(message, Exited) else 137

    return _Process(connection.fileno(), exit_code)


def _container_of(target: Target, wanted: str) -> Container:
    mine = [
        c
        for c in listed(target.node)[1]
        if f"{c.labels.get('namespace')}/{c.labels.get('pod')}" == target.name
    ]
    running = [c for c in mine if c.pid and (not wanted or c.labels.get("container") == wanted)]
    if not running:
        raise LabError(f"pod {target.name} has no running container {wanted}".rstrip())
    return running[0]


def _start_outside(argv: tuple[str, ...], env: dict[str, str], fds: list[int], *, tty: bool) -> _Process:
    pid = os.fork()
    if pid == 0:
        guarded(lambda: _become(argv, env, fds, tty))

    def exit_code() -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else 128 - code

    return _Process(os.pidfd_open(pid), exit_code)


def _become(argv: tuple[str, ...], env: dict[str, str], fds: list[int], tty: bool) -> None:
    from towpath.lab import runtime_process

    namespaces.die_with_parent()
    namespaces.setns(os.open(OUTSIDE, os.O_RDONLY), namespaces.CLONE_NEWNET)
    runtime_process.run_exec(Exec(id="", argv=argv, env=env, tty=tty), 0, "", fds)


class _Pump:
    """Waits for the process, moving a terminal's bytes meanwhile; the caller's hang-up ends it."""

    def __init__(self, conversation: Conversation, terminal: int, process: _Process) -> None:
        self._conversation, self._terminal, self._process = conversation, terminal, process
        self._selector = selectors.DefaultSelector()
        self._code: int | None = None

    def run(self) -> int:
        """The exit code."""
        register = self._selector.register
        register(self._process.fd, selectors.EVENT_READ, self._ended)
        register(self._conversation.connection, selectors.EVENT_READ, self._hear)
        if self._terminal >= 0:
            register(self._terminal, selectors.EVENT_READ, self._output)
            with suppress(PermissionError):  # /dev/null and files cannot be polled, nor need they
                register(self._conversation.fds[0], selectors.EVENT_READ, self._input)
        while self._code is None:
            for key, _ in self._selector.select():
                key.data()
        if self._terminal >= 0:
            os.set_blocking(self._terminal, False)
            with suppress(OSError):  # what the process said last
                while data := os.read(self._terminal, _PIECE):
                    os.write(self._conversation.fds[1], data)
        return self._code

    def _ended(self) -> None:
        self._code = self._process.exit_code()

    def _hear(self) -> None:
        """Window sizes from the caller; end-of-file is a caller that is gone."""
        data = self._conversation.connection.recv(4096)
        if not data:
            os._exit(0)  # closing the runtime connection kills the process
        for line in data.splitlines():
            with suppress(msgspec.DecodeError, KeyError, TypeError, OSError):
                rows, columns = msgspec.json.decode(line)["resize"]
                packed = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, packed)

    def _output(self) -> None:
        try:
            data = os.read(self._terminal, _PIECE)
        except OSError:  # EIO: the last process closed the terminal
            data = b""
        if not data:
            self._selector.unregister(self._terminal)
            return
        os.write(self._conversation.fds[1], data)

    def _input(self) -> None:
        data = os.read(self._conversation.fds[0], _PIECE)
        if not data:
            self._selector.unregister(self._conversation.fds[0])
            data = b"\x04"
        os.write(self._terminal, data)


def pcap(conversation: Conversation) -> dict[str, Any]:
    """Capture on a node's device: pcap, or a line a packet, into the caller's descriptor."""
    if len(conversation.fds) != 1:
        raise LabError("pcap needs one descriptor")
    node, device = str(conversation.argument("node")), str(conversation.argument("dev", "eth0"))
    try:
        wanted = capture.parse_filter([str(w) for w in conversation.argument("filter", [])])
    except ValueError as bad:
        raise LabError(f"filter: {bad}", "e.g. udp port 8472 and host 172.30.0.12") from bad
    fd = os.open(OUTSIDE, os.O_RDONLY) if node == "outside" else node_netns(node)
    namespaces.setns(fd, namespaces.CLONE_NEWNET)
    try:
        source = capture.open_device(device)
    except OSError as refused:
        raise LabError(f"{device} on {node}: {refused.strerror}") from refused
    text, count = bool(conversation.argument("text", False)), int(conversation.argument("count", 0))
    conversation.say(progress=f"capturing on {device} of {node}")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    stop = conversation.connection
    seen = capture.run(source, conversation.fds[0], wanted, stop=stop, text=text, count=count)
    with suppress(OSError):
        stop.shutdown(socket.SHUT_RD)
    return {"packets": seen}


VERBS: dict[str, Verb] = {"exec": exec_, "pcap": pcap}
