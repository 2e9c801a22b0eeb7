"""One caller of the lab's control socket, seen from inside."""

import socket
from collections.abc import Callable
from typing import Any

import msgspec

from towpath.lab import rundir
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec

_LONGEST = 4 * 1024 * 1024


class Conversation:
    """One caller. ``arguments`` as sent, ``fds`` the descriptors that came along."""

    def __init__(self, connection: socket.socket, spec: LabSpec) -> None:
        self.connection, self.spec = connection, spec
        self.arguments: dict[str, Any] = {}
        self.fds: list[int] = []

    def read_verb(self) -> str:
        """The request line. Raises LabError on what is none."""
        data = b""
        while not data.endswith(b"\n") and len(data) < _LONGEST:
            piece, fds, _, _ = socket.recv_fds(self.connection, 65536, 4)
            self.fds += fds
            if not piece:
                break
            data += piece
        try:
            message: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
            verb = str(message.pop("verb"))
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError):
            raise LabError("malformed request") from None
        self.arguments = message
        return verb

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument. Raises LabError when it is missing and has no default."""
        value = self.arguments.get(name, default)
        if value is None:
            raise LabError(f"argument {name!r} is missing")
        return value

    def say(self, **message: object) -> None:
        """Send one line."""
        self.connection.sendall(rundir.as_line(message))


Verb = Callable[[Conversation], Any]
