"""The real control plane of ``towpath lab up --control-plane real``: in the place of the embedded server.

One process of the lab starts etcd and Kubernetes' programs in the lab's root network namespace, tends them,
and forwards what comes in on the socket the launcher opened on the host's 127.0.0.1. Killing it kills them;
what etcd knew is on the lab's tmpfs, so that its successor goes on from there.
"""

import asyncio
import os
import socket
from contextlib import suppress

from towpath.lab import namespaces, topology
from towpath.lab.apiprocess import ApiProcess
from towpath.lab.real.binaries import find_binaries
from towpath.lab.real.controlplane import ControlPlane, Settings
from towpath.lab.rootfs import STATE
from towpath.lab.topology import LabSpec

# A lab notices a lost node in seconds; its kubelets' hearts beat every two.
_NODE_GRACE = 8
_TEND_SECONDS = 0.5
_PIECE = 1 << 16


def settings(spec: LabSpec) -> Settings:
    """The control plane of this lab: its networks, its static tokens, every address the router has."""
    routers = [str(i.ip) for s in spec.segments for i in topology.segment_gateways(spec, s)]
    return Settings(
        addresses=tuple(topology.api_addresses(spec)),
        port=topology.API_PORT,
        names=tuple(routers),
        cluster_cidrs=tuple(topology.networks(spec, topology.POD_NETWORK4, topology.POD_NETWORK6)),
        service_cidrs=tuple(topology.networks(spec, topology.SERVICE_NETWORK4, topology.SERVICE_NETWORK6)),
        tokens=STATE / "tokens.csv",
        node_grace=_NODE_GRACE,
    )


def plane(spec: LabSpec) -> ControlPlane:
    """The control plane, stopped; makes the certificates under the lab's pki/. Raises LabError, OSError."""
    return ControlPlane(find_binaries(lambda _: None), STATE, settings(spec))


class RealApiProcess(ApiProcess):
    """Like the embedded server's process for the supervisor: run, stop, allow."""

    def listen_inside(self) -> None:
        """Nothing: kube-apiserver opens its own sockets."""

    def run(self) -> None:
        """In a forked child: start everything, then forward and tend for ever."""
        namespaces.die_with_parent()
        namespaces.set_name("lab-control")
        one = plane(self._spec)
        log = STATE / "apiserver.log"
        if not log.is_symlink():
            log.symlink_to(STATE / "log" / "kube-apiserver.log")
        one.start()
        asyncio.run(_serve(one, self._host))


async def _serve(one: ControlPlane, listener: socket.socket) -> None:
    where = one.settings.addresses[0], one.settings.port

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(*where)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        writer.close()

    listener.setblocking(False)
    server = await asyncio.start_server(forward, sock=socket.socket(fileno=os.dup(listener.fileno())))
    async with server:
        while True:
            one.tend()
            await asyncio.sleep(_TEND_SECONDS)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the sender has no more or the receiver is gone; the other direction may go on."""
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof() if writer.can_write_eof() else writer.close()
