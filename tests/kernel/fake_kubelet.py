"""The kubelet's list of pods' devices, served as the kubelet serves it: gRPC on a Unix socket.

No device plugin runs where tests run; what a real kubelet answers is in ``tests/e2e``.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from towpath.agent.kubelet_devices import Raw
from towpath.api.pod_resources import LIST

Devices = Mapping[str, Mapping[str, list[str]]]


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, short enough for one byte of length."""
    assert len(content) < 128
    return bytes((number << 3 | 2, len(content))) + content


def listing(pods: Devices) -> bytes:
    """``pods``: devices by resource, by NAMESPACE/NAME; each resource in a container of its own."""
    answer = b""
    for key, resources in pods.items():
        namespace, _, name = key.partition("/")
        pod = field(1, name.encode()) + field(2, namespace.encode())
        for number, (resource, ids) in enumerate(resources.items()):
            devices = field(1, resource.encode()) + b"".join(field(2, one.encode()) for one in ids)
            # cpu_ids, which is passed over
            pod += field(3, field(1, b"c%d" % number) + field(2, devices) + bytes((3 << 3, 1)))
        answer += field(1, pod)
    return answer


class _Lister:
    def __init__(self, pods: Devices) -> None:
        self.pods = pods
        self.asked = 0

    async def _list(self, stream: "Stream[bytes, bytes]") -> None:
        assert await stream.recv_message() == b""
        self.asked += 1
        await stream.send_message(listing(self.pods))

    def __mapping__(self) -> dict[str, Any]:
        return {LIST: Handler(self._list, Cardinality.UNARY_UNARY, bytes, bytes)}


@asynccontextmanager
async def kubelet(folder: Path, pods: Devices) -> AsyncIterator[_Lister]:
    """``folder/pod-resources/kubelet.sock``, root's alone."""
    path = folder / "pod-resources/kubelet.sock"
    path.parent.mkdir(mode=0o750, exist_ok=True)
    lister = _Lister(pods)
    server = Server([lister], codec=Raw())
    await server.start(path=str(path))
    path.chmod(0o600)
    try:
        yield lister
    finally:
        server.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)
