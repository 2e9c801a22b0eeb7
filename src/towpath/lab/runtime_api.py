"""The protocol of the lab's container runtime: what the kubelet and the lab's verbs may ask of a node.

One Unix SOCK_SEQPACKET socket a node (``/lab/nodes/NODE/runtime.sock``), one JSON message a packet, one
answer a request, in order. After ``Watch`` a connection carries ``Exited`` messages; after ``Exec`` one
``Exited`` when the process ends. Descriptors travel with ``Exec`` only: its stdin, stdout and stderr.
"""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from towpath.lab.rootfs import Mount

PACKET = 192 * 1024  # below the default SO_SNDBUF of a Unix socket


class RuntimeRefused(Exception):
    """The runtime did not carry out a request; the text says why."""


class EchoPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port the echo workload serves."""

    port: int
    protocol: str = "TCP"


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """The echo workload: who it says it is, and where it listens."""

    identity: str
    ports: tuple[EchoPort, ...] = ()


class RunSandbox(msgspec.Struct, frozen=True, kw_only=True, tag="run-sandbox"):
    """Make a pod's network namespace, bound to ``/run/netns/ID``. ``labels`` come back in ``List``."""

    id: str
    labels: dict[str, str] = {}


class RemoveSandbox(msgspec.Struct, frozen=True, kw_only=True, tag="remove-sandbox"):
    """Kill what is left in a sandbox and let its namespace go. Unknown id is success."""

    id: str


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Start a container: ``argv``, or the ``echo`` workload when that is empty.

    ``sandbox`` "" is the node's own network; ``hostname`` "" keeps the node's. ``read_only``: the root, but
    not the ``mounts``. ``drop`` capability numbers. ``log`` file that gets CRI log lines. Nothing limits
    memory: there are no cgroups without root. ``image`` only matters where the lab has that image's files.
    """

    id: str
    sandbox: str = ""
    hostname: str = ""
    image: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = "/"
    mounts: list[Mount] = []
    read_only: bool = False
    drop: tuple[int, ...] = ()
    echo: Echo | None = None
    log: str = "/dev/null"
    labels: dict[str, str] = {}


class Signal(msgspec.Struct, frozen=True, kw_only=True, tag="signal"):
    """Send ``signal`` to a container's first process; an exited container is success."""

    id: str
    signal: int


class RemoveContainer(msgspec.Struct, frozen=True, kw_only=True, tag="remove-container"):
    """Kill (if need be) and forget a container. Unknown id is success."""

    id: str


class Exec(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    """Run ``argv`` in a container, in a sandbox's network (``network``), or on the node ("")."""

    id: str
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    network: bool = False
    tty: bool = False


class List(msgspec.Struct, frozen=True, kw_only=True, tag="list"):
    """All sandboxes and containers."""


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag="watch"):
    """From now on this connection tells of every container that exits."""


Request = RunSandbox | RemoveSandbox | Start | Signal | RemoveContainer | Exec | List | Watch


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox as listed; ``netns`` its path on the node."""

    id: str
    netns: str
    labels: dict[str, str] = {}


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as listed; ``pid`` in the node's PID namespace, 0 once exited. Times are Unix times."""

    id: str
    sandbox: str
    pid: int
    started: float
    finished: float = 0.0
    exit_code: int = 0
    labels: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer", omit_defaults=True):
    """The answer to a request; ``error`` non-empty when refused."""

    error: str = ""
    netns: str = ""
    pid: int = 0
    started: float = 0.0
    sandboxes: list[Sandbox] = []
    containers: list[Container] = []


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited"):
    """A container's (or an Exec's) process ended: 0–255, or 128 + signal."""

    id: str
    exit_code: int
    finished: float


Message = Answer | Exited
T = TypeVar("T", bound=Message)

REQUEST = msgspec.json.Decoder(Request)
MESSAGE: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def connect(path: Path) -> socket.socket:
    """A blocking connection to a node's runtime. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def call(connection: socket.socket, request: Request, fds: Sequence[int] = ()) -> Answer:
    """Ask and wait (blocking). Raises RuntimeRefused, OSError."""
    socket.send_fds(connection, [msgspec.json.encode(request)], fds)
    return _granted(connection.recv(PACKET))


def _granted(packet: bytes) -> Answer:
    if not packet:
        raise RuntimeRefused("the node's runtime went away")
    answer = MESSAGE.decode(packet)
    if not isinstance(answer, Answer):
        raise RuntimeRefused(f"unexpected message {packet!r}")
    if answer.error:
        raise RuntimeRefused(answer.error)
    return answer


class Runtime:
    """The kubelet's side: requests from asyncio, one at a time on one connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: socket.socket | None = None
        self._turn = asyncio.Lock()

    async def call(self, request: Request) -> Answer:
        """Raises RuntimeRefused, OSError."""
        async with self._turn:
            if self._connection is None:
                self._connection = connect(self.path)
                self._connection.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_sendall(self._connection, msgspec.json.encode(request))
                packet = await loop.sock_recv(self._connection, PACKET)
            except BaseException:  # a cancelled caller must not leave its answer to the next one
                self.close()
                raise
            return _granted(packet)

    def close(self) -> None:
        """Drop the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ExitWatch:
    """Exits of containers, as an asynchronous iterator that ends with the runtime."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        call(self._connection, Watch())
        self._connection.setblocking(False)

    def __aiter__(self) -> "ExitWatch":
        return self

    async def __anext__(self) -> Exited:
        packet = await asyncio.get_running_loop().sock_recv(self._connection, PACKET)
        if not packet:
            self._connection.close()
            raise StopAsyncIteration
        message = MESSAGE.decode(packet)
        assert isinstance(message, Exited)  # noqa: S101 (a watching connection carries nothing else)
        return message
