"""The API's part in a migration: whose pods are on the node, and the label that moves the DaemonSets."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from towpath.install.migration import LABEL
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import NODES, PODS
from towpath.model.attachment import PodRef

T = TypeVar("T")


class ClusterUnknown(Exception):
    """The API server could not be asked, or told; the text says why."""


class Cluster(Protocol):
    """What a migration asks of the API."""

    async def pods(self) -> tuple[PodRef, ...]:
        """Pods of this node with an address of the pod network. Raises ClusterUnknown."""
        ...

    async def announce(self, value: str) -> None:
        """Set the Node's label, or remove it. Raises ClusterUnknown."""
        ...


class ApiCluster:
    """``connect`` gives a client for one conversation: a migration lasts longer than a token may."""

    def __init__(self, connect: Callable[[], Client], node: str) -> None:
        self._connect, self._node = connect, node

    async def pods(self) -> tuple[PodRef, ...]:
        """See ``Cluster``."""

        async def ask(client: Client) -> tuple[PodRef, ...]:
            found = await client.list(PODS, field_selector=f"spec.nodeName={self._node}")
            return tuple(
                PodRef(namespace=pod.metadata.namespace, name=pod.metadata.name, uid=pod.metadata.uid)
                for pod in found.items
                if not pod.spec.host_network and pod.spec.node_name == self._node
            )

        return await self._talk(ask)

    async def announce(self, value: str) -> None:
        """See ``Cluster``."""

        async def tell(client: Client) -> None:
            await client.patch(NODES.raw(), self._node, {"metadata": {"labels": {LABEL: value or None}}})

        await self._talk(tell)

    async def _talk(self, what: Callable[[Client], Awaitable[T]]) -> T:
        try:
            async with self._connect() as client:
                return await what(client)
        except KubeError as error:
            raise ClusterUnknown(str(error)) from error
