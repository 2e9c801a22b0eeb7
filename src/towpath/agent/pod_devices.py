"""Pods' devices, as the kubelet has given them out: gRPC over a connection that the shim hands over.

Only root may connect to the kubelet's socket; once connected, anybody may ask.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from socket import socket
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from towpath.api.core import Pod
from towpath.api.pod_resources import LIST, Devices, devices_of
from towpath.api.protobuf import Malformed
from towpath.cni.request import Request
from towpath.multinet.choose import Wanted
from towpath.multinet.devices import device_info, needs_devices, with_devices
from towpath.multinet.refusal import NetworkRefused

NO_ANSWER = "TP6026"
_ANSWER_WITHIN = 5.0


class PodDevices:
    """``path`` of the kubelet's socket pod-resources/kubelet.sock; ``folder`` of device-info files."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder

    async def give(
        self, r: Request, pod: Pod, wanted: Sequence[Wanted], taken: Iterable[str] = ()
    ) -> tuple[Wanted, ...]:
        """Each of a pod's networks that takes a device with one of the pod's. Raises NetworkRefused."""
        if not needs_devices(wanted):
            return tuple(wanted)
        return with_devices(wanted, await self.of(r, pod.metadata.namespace, pod.metadata.name), taken)

    def info(self, file: str) -> dict[str, Any] | None:
        """What network-status tells of a device; None where nobody has described it."""
        if not file:
            return None
        try:
            return device_info((self._folder / file).read_bytes())
        except OSError:
            return None

    async def of(self, r: Request, namespace: str, name: str) -> Devices:
        """Of one pod. Raises NetworkRefused."""
        about = f"devices of Pod/{namespace}/{name}"
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                found = devices_of(await _listing(await r.kubelet(str(self._path))), namespace, name)
        except TimeoutError as error:
            raise _refused(about, f"the kubelet did not answer within {_ANSWER_WITHIN:g} s") from error
        except (OSError, GRPCError, StreamTerminatedError, Malformed) as error:
            raise _refused(about, f"the kubelet's list of devices cannot be read: {error}") from error
        if found is None:
            raise _refused(about, "the kubelet does not know the pod")
        return found


async def _listing(connection: socket) -> bytes:
    """Raises OSError, GRPCError, StreamTerminatedError."""
    channel = _Handed(connection)
    try:
        answer: bytes = await UnaryUnaryMethod(channel, LIST, bytes, bytes)(b"")
        return answer
    finally:
        channel.close()
        connection.close()


class _Handed(Channel):
    """A channel over a connection that is there."""

    def __init__(self, connection: socket) -> None:
        super().__init__(path="kubelet.sock", codec=_Raw())
        self._handed = connection

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._loop.create_unix_connection(self._protocol_factory, sock=self._handed)
        return protocol


class _Raw(CodecBase):
    """Messages are encoded and decoded by whoever asks."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


def _refused(about: str, problem: str) -> NetworkRefused:
    fix = "look at the kubelet, and at the agents' setting network_kubelet_socket"
    return NetworkRefused(NO_ANSWER, about, problem, fix)
