"""The kubelet's list of pods' devices, by gRPC over a connection that is there.

To import gRPC takes 75 ms: whoever asks first does it.
"""

from socket import socket
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from towpath.api.pod_resources import LIST


async def listing(connection: socket) -> bytes:
    """A ListPodResourcesResponse; the connection is closed. Raises OSError."""
    channel = _Handed(connection)
    try:
        answer: bytes = await UnaryUnaryMethod(channel, LIST, bytes, bytes)(b"")
        return answer
    except (GRPCError, StreamTerminatedError) as error:
        raise OSError(str(error)) from error
    finally:
        channel.close()
        connection.close()


class _Handed(Channel):
    """A channel over a connection that is there."""

    def __init__(self, connection: socket) -> None:
        super().__init__(path="kubelet.sock", codec=Raw())
        self._handed = connection

    async def _create_connection(self) -> H2Protocol:
        _, protocol = await self._loop.create_unix_connection(self._protocol_factory, sock=self._handed)
        return protocol


class Raw(CodecBase):
    """Messages are encoded and decoded by whoever asks."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data
