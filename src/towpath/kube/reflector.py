"""A local copy of a collection that follows the API server for ever: list, then watch.

Three layers, each a generator over the next (kopf's shape): one connection (``Client.watch``), one list and
the watches that continue it (``_follow``), and for ever with backoff (``changes``). A list ends with an
explicit ``Listed`` mark, and what it does not contain is gone.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from towpath.kube.backoff import Backoff
from towpath.kube.client import Client
from towpath.kube.codec import Event, Key, Listing, key_of, version_of
from towpath.kube.errors import BadRequest, Gone, Invalid, KubeError, NotFound
from towpath.kube.kinds import Kind
from towpath.log import get_logger

T = TypeVar("T")

log = get_logger("towpath.kube")

_SHORT_WATCH = 1.0  # a watch that ends sooner, having said nothing, counts as a failure


class Trouble(msgspec.Struct, frozen=True):
    """The API server cannot be followed at the moment. ``wait`` seconds until the next try."""

    error: KubeError
    wait: float


Change = Listing[T] | Event[T] | Trouble


class Selection(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What to follow: a kind, one namespace or all (""), and selectors."""

    kind: Kind[T]
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""


async def changes(
    client: Client, what: Selection[T], backoff: Backoff, silence: float = 90.0
) -> AsyncGenerator[Listing[T] | Event[T] | Trouble, None]:
    """Follow ``what`` for ever. Every ``Listing`` replaces all that was known before it."""
    version = ""
    expired = False
    while True:
        try:
            async with contextlib.aclosing(_follow(client, what, version, backoff, silence)) as stream:
                async for change in stream:
                    version = change.resource_version or version
                    expired = expired and (isinstance(change, Listing) or change.type == "OPENED")
                    yield change
        except Gone as e:
            # The first 410 costs one list, at once; a server that answers nothing else is not hammered.
            version = ""
            if expired:
                wait = backoff.next(e.retry_after)
                yield Trouble(e, wait)
                await asyncio.sleep(wait)
            expired = True
        except KubeError as e:
            if isinstance(e, BadRequest | NotFound | Invalid):
                version = ""  # it is the question that the server does not like: ask the simplest one
            wait = backoff.next(getattr(e, "retry_after", 0.0))
            yield Trouble(e, wait)
            await asyncio.sleep(wait)


async def _follow(
    client: Client, what: Selection[T], version: str, backoff: Backoff, silence: float
) -> AsyncGenerator[Listing[T] | Event[T], None]:
    """List unless ``version`` says where we were, then watch on and on from where the last watch ended."""
    if not version:
        listing = await client.list(
            what.kind,
            what.namespace,
            label_selector=what.label_selector,
            field_selector=what.field_selector,
        )
        version = listing.resource_version
        yield listing
    loop = asyncio.get_running_loop()
    while True:
        begun, heard = loop.time(), False
        watch = client.watch(
            what.kind,
            what.namespace,
            resource_version=version,
            timeout_seconds=random.randint(240, 480),  # noqa: S311 (spreads reconnections)
            silence=silence,
            label_selector=what.label_selector,
            field_selector=what.field_selector,
        )
        async with contextlib.aclosing(watch) as events:
            async for event in events:
                if event.type != "OPENED":
                    heard = True
                    backoff.reset()
                version = event.resource_version or version
                yield event
        if not heard and loop.time() - begun < _SHORT_WATCH:
            await asyncio.sleep(backoff.next())


class Reflector(Generic[T]):
    """The copy. ``run()`` keeps it; everybody else reads ``objects``.

    ``on_change`` is called, in the event loop, with the key of every object that came, changed or went, and
    with None once a list is complete; it must not block. ``listed`` is set after the first complete list.
    ``problem`` is the error that keeps us from following the server now, None while all is well.
    ``undecodable`` names objects whose present version is not understood; their last good one stays.
    """

    def __init__(
        self,
        client: Client,
        what: Selection[T],
        on_change: Callable[[Key | None], None] = lambda _: None,
        *,
        backoff: Backoff | None = None,
        silence: float = 90.0,
    ) -> None:
        self._client, self._what, self._on_change = client, what, on_change
        self._backoff = backoff or Backoff()
        self._silence = silence
        self._objects: dict[Key, T] = {}
        self._versions: dict[Key, str] = {}
        self.objects = MappingProxyType(self._objects)
        self.undecodable: dict[Key, str] = {}
        self.listed = asyncio.Event()
        self.problem: KubeError | None = None
        self.relists = 0
        self.events = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        stream = changes(self._client, self._what, self._backoff, self._silence)
        async with contextlib.aclosing(stream) as everything:
            async for change in everything:
                self._take(change)

    def _take(self, change: Listing[T] | Event[T] | Trouble) -> None:
        match change:
            case Trouble():
                if type(self.problem) is not type(change.error):
                    self._tell(change.error)
                self.problem = change.error
                return
            case Listing():
                self._replace(change)
            case Event(type="OPENED"):
                pass
            case Event():
                self.events += 1
                self._apply(change)
        if self.problem is not None:
            self.problem = None
            log.info("api_followed_again", kind=self._what.kind.plural)

    def _tell(self, error: KubeError) -> None:
        """A kind whose definition went is a change of the cluster's, as when a policy API is uninstalled."""
        if isinstance(error, NotFound):
            log.warning("kind_not_served", kind=self._what.kind.plural)
        else:
            log.warning("api_not_followed", kind=self._what.kind.plural, error=str(error))

    def _replace(self, listing: Listing[T]) -> None:
        """The list is the whole truth: what it lacks is gone, what it could not decode stays as it was."""
        fresh = {key_of(obj): obj for obj in listing.items}
        self.undecodable = {bad.key: bad.problem for bad in listing.undecodable}
        kept = {key: self._objects[key] for key in self.undecodable if key in self._objects}
        versions = {key: version_of(obj) for key, obj in fresh.items()}
        changed = [key for key in fresh if versions[key] != self._versions.get(key)]
        gone = [key for key in self._objects if key not in fresh and key not in kept]
        self._objects.clear()
        self._objects.update(kept)
        self._objects.update(fresh)
        self._versions = versions
        self.relists += 1
        for key in [*gone, *changed]:
            self._on_change(key)
        self.listed.set()
        self._on_change(None)

    def _apply(self, event: Event[T]) -> None:
        if event.type == "BOOKMARK":
            return
        if event.type == "UNDECODABLE":
            self.undecodable[event.key] = event.problem
        else:
            self.undecodable.pop(event.key, None)
            if event.type == "DELETED":
                self._objects.pop(event.key, None)
                self._versions.pop(event.key, None)
            elif event.object is not None:
                self._objects[event.key] = event.object
                self._versions[event.key] = event.resource_version
        self._on_change(event.key)
