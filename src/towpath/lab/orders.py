"""What verbs ask of the supervisor: everything that starts or ends a long-lived process."""

import os
import socket
from pathlib import Path

import msgspec

from towpath.lab.rootfs import STATE
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec

ORDERS = STATE / "supervisor.sock"
OUTSIDE = STATE / "outside"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb asks of the supervisor."""

    op: str
    node: str = ""


class NodeProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A running node. ``pid`` in the lab's PID namespace; its netns is ``/proc/PID/ns/net``."""

    name: str
    pid: int
    boot_id: str
    booted: float
    boots: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order."""

    error: str = ""
    nodes: list[NodeProcess] = []
    api: int = 0
    spec: LabSpec | None = None


def ask(order: Order, path: Path = ORDERS) -> Report:
    """From a verb's process: have the supervisor carry out an order. Raises LabError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(path))
        connection.send(msgspec.json.encode(order))
        packet = connection.recv(256 * 1024)
    if not packet:
        raise LabError("the lab is going down")
    report = msgspec.json.decode(packet, type=Report)
    if report.error:
        raise LabError(report.error)
    return report


def node_process(name: str) -> NodeProcess:
    """The running node called ``name``. Raises LabError."""
    report = ask(Order(op="list"))
    assert report.spec is not None  # noqa: S101 (always part of a report)
    report.spec.node(name)
    return next(process for process in report.nodes if process.name == name)


def node_netns(name: str) -> int:
    """A descriptor of a node's network namespace. Raises LabError."""
    return os.open(f"/proc/{node_process(name).pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
