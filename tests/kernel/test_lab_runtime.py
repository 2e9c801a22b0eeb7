"""The lab's container runtime by itself: what started means."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import until
from towpath.lab.runtime_api import Echo, EchoPort, List, RemoveContainer, Start, call, connect

pytestmark = pytest.mark.kernel

SERVE = """
import socket, sys
from towpath.lab.runtime import Runtime
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
Runtime(listener, lambda pid: False).serve()
"""
ROUNDS = 10


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[socket.socket]:
    """A connection to a runtime in the network namespace of the tests."""
    path = tmp_path / "runtime.sock"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path)])
    try:
        until(path.exists)
        with contextlib.closing(_connected(path)) as connection:
            yield connection
        with contextlib.closing(_connected(path)) as connection:
            for one in call(connection, List()).containers:  # of a test that failed
                call(connection, RemoveContainer(id=one.id))
    finally:
        process.kill()
        process.wait()


def _connected(path: Path) -> socket.socket:
    while True:  # bound, and a moment later it listens
        try:
            return connect(path)
        except ConnectionRefusedError:
            time.sleep(0.01)


def test_an_echo_that_was_started_listens(runtime: socket.socket) -> None:
    for number in range(ROUNDS):
        port = 21000 + number
        echo = Echo(identity="it", ports=(EchoPort(port=port), EchoPort(port=port, protocol="UDP")))
        call(runtime, Start(id=str(port), echo=echo))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as asking:
            asking.sendall(b"?\n")
            assert asking.recv(100).startswith(b"it from ")
        call(runtime, RemoveContainer(id=str(port)))


def test_a_program_that_was_started_runs(runtime: socket.socket) -> None:
    for number in range(ROUNDS):
        pid = call(runtime, Start(id=str(number), argv=("sleep", "600"))).pid
        assert Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", b"600"]
        call(runtime, RemoveContainer(id=str(number)))


def test_what_cannot_start_holds_nothing_up(runtime: socket.socket) -> None:
    call(runtime, Start(id="a", echo=Echo(identity="a", ports=(EchoPort(port=21000),))))
    call(runtime, Start(id="b", echo=Echo(identity="b", ports=(EchoPort(port=21000),))))
    call(runtime, Start(id="c", argv=("/there/is/none",)))
    for name in "abc":
        call(runtime, RemoveContainer(id=name))
