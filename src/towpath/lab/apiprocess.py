"""The API server's process and its listening sockets, which outlive it.

One socket was opened on 127.0.0.1 in the host's network namespace by the launcher and is inherited; the
others listen on the router's addresses, where nodes reach the server.
"""

import asyncio
import os
import signal
import socket
from contextlib import suppress

from towpath.lab import controlplane, namespaces, topology
from towpath.lab.rootfs import STATE
from towpath.lab.topology import LabSpec

_BACKLOG = 512


def of(spec: LabSpec, host_socket: int) -> "ApiProcess":
    """The process this lab asked for: the embedded server, or the real control plane."""
    if spec.control_plane == "real":
        from towpath.lab.real.labplane import RealApiProcess

        return RealApiProcess(spec, host_socket)
    return ApiProcess(spec, host_socket)


def prepare(spec: LabSpec) -> None:
    """Before the credentials of everybody: real Kubernetes needs an authority whose key is kept.

    Raises LabError, OSError.
    """
    if spec.control_plane == "real":
        from towpath.lab.real.labplane import plane

        plane(spec)


class ApiProcess:
    """``pid`` 0 while it does not run; ``stopped`` while ``api-down`` is in force."""

    def __init__(self, spec: LabSpec, host_socket: int) -> None:
        self._spec = spec
        self._host = socket.socket(fileno=host_socket)
        self._inside: list[socket.socket] = []
        self.pid = 0
        self.stopped = False

    @property
    def host_port(self) -> int:
        """The port on the host's 127.0.0.1."""
        port: int = self._host.getsockname()[1]
        return port

    def listen_inside(self) -> None:
        """Open the sockets nodes connect to. Raises OSError."""
        for address in topology.api_addresses(self._spec):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            where = (address, topology.API_PORT)
            self._inside.append(socket.create_server(where, family=family, backlog=_BACKLOG))

    def run(self) -> None:
        """In a forked child: become the API server."""
        namespaces.set_name("lab-apiserver")
        listeners = [self._host, *self._inside]
        for listener in listeners:
            listener.set_inheritable(True)
        services = topology.networks(self._spec, topology.SERVICE_NETWORK4, topology.SERVICE_NETWORK6)
        pods = topology.networks(self._spec, topology.POD_NETWORK4, topology.POD_NETWORK6)
        arguments = ["--dir", str(STATE), "--listen-fd", ",".join(str(s.fileno()) for s in listeners)]
        arguments += ["--cluster-cidr", ",".join(pods), "--service-cidr", ",".join(services)]
        with (STATE / "apiserver.log").open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        asyncio.run(controlplane.serve(controlplane.arguments(arguments)))

    def stop(self) -> None:
        """Kill it, and refuse connections: what nodes see when the machine is up and the server is not."""
        self.stopped = True
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        for listener in (self._host, *self._inside):
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def allow(self) -> None:
        """Accept connections again; the caller starts the process."""
        self.stopped = False
        for listener in (self._host, *self._inside):
            listener.listen(_BACKLOG)
