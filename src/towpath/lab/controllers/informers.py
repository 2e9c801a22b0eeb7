"""One local copy of each kind for all controllers, with indexes and callbacks of (before, after)."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from towpath.kube.client import Client
from towpath.kube.codec import Key
from towpath.kube.reflector import Reflector, Selection
from towpath.lab.controllers.ownership import HasMeta
from towpath.lab.controllers.resources import Resource

T = TypeVar("T", bound=HasMeta)
Handler = Callable[[T | None, T | None], None]


class Index(Generic[T]):
    """Objects of an informer by what ``keys`` answers for each."""

    def __init__(self, keys: Callable[[T], Iterable[str]]) -> None:
        self._keys = keys
        self._rows: dict[str, dict[Key, T]] = {}

    def get(self, key: str) -> list[T]:
        """All objects under ``key``."""
        return list(self._rows.get(key, {}).values())

    def move(self, before: T | None, after: T | None) -> None:
        """Follow a change."""
        for key in self._keys(before) if before is not None else ():
            row = self._rows.get(key, {})
            row.pop((before.metadata.namespace, before.metadata.name), None)  # type: ignore[union-attr]
            if not row:
                self._rows.pop(key, None)
        for key in self._keys(after) if after is not None else ():
            name = (after.metadata.namespace, after.metadata.name)  # type: ignore[union-attr]
            self._rows.setdefault(key, {})[name] = after  # type: ignore[assignment]


class Informer(Generic[T]):
    """A reflector, the last known form of each object, and everybody who wants to hear of changes."""

    def __init__(self, client: Client, resource: Resource[T]) -> None:
        self.resource = resource
        self.version = 0
        self._handlers: list[Handler[T]] = []
        self._indexes: list[Index[T]] = []
        self._known: dict[Key, T] = {}
        self._reflector: Reflector[T] = Reflector(client, Selection(kind=resource.api), self._changed)
        self.listed = self._reflector.listed
        self.objects = self._reflector.objects

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        await self._reflector.run()

    @property
    def cut_off(self) -> bool:
        """The API server cannot be followed at the moment: silence of others proves nothing."""
        return self._reflector.problem is not None

    def get(self, key: str) -> T | None:
        """By ``namespace/name``, or the bare name of a cluster-scoped object."""
        namespace, _, name = key.rpartition("/")
        return self.objects.get((namespace, name))

    def all(self) -> list[T]:
        """Every object."""
        return list(self.objects.values())

    def subscribe(self, handler: Handler[T]) -> None:
        """Call ``handler(before, after)`` on every change; what is known already counts as new."""
        self._handlers.append(handler)
        for item in self._known.values():
            handler(None, item)

    def index(self, keys: Callable[[T], Iterable[str]]) -> Index[T]:
        """A new index, kept up to date before any handler hears of a change."""
        index = Index(keys)
        self._indexes.append(index)
        for item in self._known.values():
            index.move(None, item)
        return index

    def _changed(self, key: Key | None) -> None:
        if key is None:
            return
        before, after = self._known.get(key), self.objects.get(key)
        if after is None:
            self._known.pop(key, None)
        else:
            self._known[key] = after
            version = after.metadata.resource_version
            self.version = max(self.version, int(version) if version.isdigit() else 0)
        for index in self._indexes:
            index.move(before, after)
        for handler in self._handlers:
            handler(before, after)


class Informers:
    """The informers of a process: one a kind, started when first asked for."""

    def __init__(self, client: Client, group: asyncio.TaskGroup) -> None:
        self._client, self._group = client, group
        self._by_id: dict[str, tuple[Informer[Any], asyncio.Task[None]]] = {}

    def of(self, resource: Resource[T]) -> Informer[T]:
        """The informer of a kind. The first to ask decides how its objects decode."""
        if resource.id not in self._by_id:
            informer = Informer(self._client, resource)
            task = self._group.create_task(informer.run(), name=f"informer {resource.id}")
            self._by_id[resource.id] = informer, task
        return self._by_id[resource.id][0]

    def known(self, id: str) -> Informer[Any] | None:
        """The informer of the kind with that id, if anyone asked for it."""
        entry = self._by_id.get(id)
        return entry[0] if entry else None

    def drop(self, id: str) -> None:
        """Stop following a kind that is no more."""
        entry = self._by_id.pop(id, None)
        if entry:
            entry[1].cancel()

    async def listed(self, *informers: Informer[Any]) -> None:
        """Wait until all of these have their first list."""
        for informer in informers:
            await informer.listed.wait()


def owner_uids(item: HasMeta) -> list[str]:
    """Index key: the uid of the managing controller."""
    owner = item.metadata.owner
    return [owner.uid] if owner else []


def namespaces(item: HasMeta) -> list[str]:
    """Index key: the namespace."""
    return [item.metadata.namespace]
