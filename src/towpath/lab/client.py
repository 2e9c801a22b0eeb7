"""The host's side of a lab's control socket: one verb a connection, JSON lines both ways.

To the lab: ``{"verb": NAME, …arguments}``, with descriptors for verbs that want the caller's terminal or
file. Back: any number of ``{"progress": TEXT}`` or ``{"item": VALUE}``, then ``{"result": VALUE}`` or
``{"error": TEXT, "hint": TEXT, "code": TEXT}``.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from towpath.lab import rundir
from towpath.lab.rundir import LabError


class LabClient:
    """A running lab. ``name`` None: the only one that runs. Raises LabError where there is none."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or rundir.only_running()
        self.folder = rundir.path_of(self.name)

    @property
    def kubeconfig(self) -> str:
        """Path of a kubeconfig that works on this machine."""
        return str(self.folder / rundir.KUBECONFIG)

    def open(self, verb: str, fds: Sequence[int] = (), **arguments: Any) -> socket.socket:
        """Start a verb and return its connection. Raises LabError if the lab does not answer."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.folder / rundir.CONTROL))
        except OSError:
            connection.close()
            raise LabError(
                f"lab {self.name!r} is not running", "`towpath lab up` starts one", "TP9003"
            ) from None
        socket.send_fds(connection, [rundir.as_line({"verb": verb, **arguments})], fds)
        return connection

    def call(
        self,
        verb: str,
        fds: Sequence[int] = (),
        progress: Callable[[str], None] = lambda _: None,
        item: Callable[[Any], None] = lambda _: None,
        **arguments: Any,
    ) -> Any:
        """Carry out a verb and return its result. Raises LabError with the lab's own words."""
        with self.open(verb, fds, **arguments) as connection:
            return result_of(connection, progress, item)


def result_of(
    connection: socket.socket,
    progress: Callable[[str], None] = lambda _: None,
    item: Callable[[Any], None] = lambda _: None,
) -> Any:
    """Read a verb's answer to its end. Raises LabError."""
    with connection.makefile("rb") as lines:
        for line in lines:
            message: dict[str, Any] = msgspec.json.decode(line)
            if "progress" in message:
                progress(message["progress"])
            elif "item" in message:
                item(message["item"])
            elif "error" in message:
                raise LabError(message["error"], message.get("hint", ""), message.get("code", ""))
            else:
                return message["result"]
    raise LabError("the lab went away")
