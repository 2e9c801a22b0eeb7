"""An API server the behaviour suite runs against: the lab's own in `make test`, upstream's in `make e2e`."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from towpath.kube.client import Client
from towpath.kube.codec import Event
from towpath.kube.config import ClientConfig
from towpath.kube.errors import Forbidden, KubeError, NotFound
from towpath.kube.kinds import Kind, Raw

NAMESPACES: Kind[Raw] = Kind(plural="namespaces", type=dict, namespaced=False)
MAPS: Kind[Raw] = Kind(plural="configmaps", type=dict)
PODS: Kind[Raw] = Kind(plural="pods", type=dict)
NODES: Kind[Raw] = Kind(plural="nodes", type=dict, namespaced=False)
SERVICES: Kind[Raw] = Kind(plural="services", type=dict)
SERVICE_ACCOUNTS: Kind[Raw] = Kind(plural="serviceaccounts", type=dict)
DEPLOYMENTS: Kind[Raw] = Kind(plural="deployments", type=dict, group="apps")
LEASES: Kind[Raw] = Kind(plural="leases", type=dict, group="coordination.k8s.io")
CRDS: Kind[Raw] = Kind(
    plural="customresourcedefinitions", type=dict, group="apiextensions.k8s.io", namespaced=False
)

_numbers = itertools.count()


@dataclass(frozen=True)
class Cluster:
    """``admin`` by static token, ``certified`` by client certificate where the server takes them.

    ``restart`` stops the server and starts it on the same store; ``forget`` makes it forget what it needs to
    continue a paged list begun before.
    """

    admin: ClientConfig
    restart: Callable[[], Awaitable[None]]
    forget: Callable[[], Awaitable[None]]
    certified: ClientConfig | None = None

    def client(self, **changes: Any) -> Client:
        """A client of the administrator's, with fields of the configuration changed."""
        return Client(msgspec.structs.replace(self.admin, **changes), user_agent="towpath-tests")


@dataclass(frozen=True)
class Space:
    """A client and a namespace of its own, with a service account ``default``."""

    cluster: Cluster
    client: Client
    namespace: str

    def map(self, name: str, labels: dict[str, str] | None = None, **data: str) -> Raw:
        """A ConfigMap."""
        meta = {"name": name, "namespace": self.namespace, "labels": labels or {}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    def pod(self, name: str, **spec: Any) -> Raw:
        """A pod of one container that no scheduler takes, and that waits for nobody's token."""
        container = {"name": "c", "image": "example.org/none:1"}
        meta = {"name": name, "namespace": self.namespace, "labels": {"app": name}}
        body = {"schedulerName": "nobody", "automountServiceAccountToken": False, "containers": [container]}
        body |= spec
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}

    @contextlib.asynccontextmanager
    async def watching(self, kind: Kind[Raw], **options: Any) -> AsyncIterator["Watching"]:
        """A watch from now on, or from ``resource_version``."""
        since = options.pop("resource_version", "") or (await self.client.list(kind)).resource_version
        stream = self.client.watch(kind, self.namespace, resource_version=since, **options)
        async with contextlib.aclosing(stream) as events:
            opened = await anext(events)
            assert opened.type == "OPENED"
            yield Watching(events)


@dataclass(frozen=True)
class Watching:
    """The events of a watch, each as soon as a busy machine has it."""

    events: Any

    async def next(self) -> Event[Raw]:
        """The next event that is no bookmark."""
        async with asyncio.timeout(120):
            while True:
                event: Event[Raw] = await anext(self.events)
                if event.type != "BOOKMARK":
                    return event

    async def types(self, count: int) -> list[tuple[str, str]]:
        """Type and name of the next events."""
        found = [await self.next() for _ in range(count)]
        return [(event.type, event.key[1]) for event in found]


@contextlib.asynccontextmanager
async def space(cluster: Cluster) -> AsyncIterator[Space]:
    """A namespace that nothing else uses; it is left to the server's end."""
    name = f"space-{next(_numbers)}"
    async with cluster.client() as client:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        await eventually(lambda: client.get(SERVICE_ACCOUNTS, "default", name), NotFound, Forbidden)
        yield Space(cluster, client, name)


async def eventually(attempt: Callable[[], Awaitable[Any]], *not_yet: type[KubeError]) -> Any:
    """What ``attempt`` returns once it neither raises ``not_yet`` nor returns None or False."""
    deadline = asyncio.get_running_loop().time() + 90
    while True:
        try:
            if (result := await attempt()) not in (None, False):
                return result
            problem: object = "nothing"
        except not_yet as error:
            problem = error
        assert asyncio.get_running_loop().time() < deadline, f"waited 90 s: {problem}"
        await asyncio.sleep(0.1)
