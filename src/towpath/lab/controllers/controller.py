"""The shared loop: changes mark keys, workers reconcile them, failures come back later."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import ApiError, Conflict
from towpath.lab.controllers.actions import Action, Emit, Plan
from towpath.lab.controllers.informers import Informer, Informers
from towpath.lab.controllers.ownership import HasMeta
from towpath.lab.controllers.resources import Resource
from towpath.lab.controllers.settings import Settings
from towpath.lab.controllers.workqueue import WorkQueue
from towpath.lab.controllers.writer import Expected, Writer
from towpath.log import get_logger

T = TypeVar("T", bound=HasMeta)

_PATIENCE = 1.0  # seconds a controller waits to see its own writes before it decides regardless


class Context(msgspec.Struct, frozen=True):
    """What every controller is given. ``now`` answers seconds since 1970."""

    client: Client
    informers: Informers
    record: Callable[[str, Emit], None]
    settings: Settings
    now: Callable[[], float]


class Controller:
    """A reconcile loop. Subclasses name themselves, subscribe in ``__init__`` and implement ``reconcile``.

    ``workers`` keys are reconciled at a time, each key by one worker.
    """

    name = ""
    workers = 2

    def __init__(self, context: Context) -> None:
        self.context = context
        self.queue = WorkQueue()
        self.log = get_logger("towpath.lab").bind(controller=self.name)
        self.writer = Writer(context.client, self._record)
        self._informers: list[Informer[Any]] = []
        self._expected: dict[str, Expected] = {}

    async def reconcile(self, key: str) -> Plan:
        """Decide from the informers' copies what to do about ``key``. Raises ApiError."""
        raise NotImplementedError

    def informer(self, resource: Resource[T]) -> Informer[T]:
        """The shared informer of a kind; the controller starts once it has listed."""
        informer = self.context.informers.of(resource)
        if informer not in self._informers:
            self._informers.append(informer)
        return informer

    def enqueue_owner(self, owner: Resource[Any]) -> Callable[[HasMeta | None, HasMeta | None], None]:
        """A handler that marks the objects' controllers of kind ``owner``."""

        def handler(before: HasMeta | None, after: HasMeta | None) -> None:
            for item in (before, after):
                reference = item.metadata.owner if item else None
                if item and reference and reference.kind == owner.kind:
                    self.queue.add(f"{item.metadata.namespace}/{reference.name}")

        return handler

    def enqueue(self, before: HasMeta | None, after: HasMeta | None) -> None:
        """A handler that marks the changed object itself."""
        item = after or before
        if item:
            self.queue.add(item.metadata.key)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.context.informers.listed(*self._informers)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.workers):
                    group.create_task(self._work())
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                if not self._behind(key):
                    await self._reconcile(key)
            finally:
                self.queue.done(key)

    def _behind(self, key: str) -> bool:
        """Own writes have not come back yet; the event that brings them marks the key again."""
        expected = self._expected.get(key)
        if expected is None:
            return False
        left = expected.since + _PATIENCE - asyncio.get_running_loop().time()
        known = self.context.informers.known
        for id, version in expected.versions.items():
            informer = known(id)
            if left > 0 and informer in self._informers and informer and informer.version < version:
                self.queue.add_after(key, left)
                return True
        self._expected.pop(key, None)
        return False

    async def _reconcile(self, key: str) -> None:
        try:
            plan = await self.reconcile(key)
            if plan.actions:
                await self.write(key, plan.actions)
        except Conflict:
            self.queue.retry(key)
        except ApiError as error:
            delay = self.queue.retry(key, error.retry_after)
            self.log.warning("reconcile failed", key=key, error=str(error), retry_in=round(delay, 3))
        except Exception:
            delay = self.queue.retry(key)
            self.log.exception("reconcile failed", key=key, retry_in=round(delay, 3))
        else:
            self.queue.forget(key)
            if plan.recheck is not None:
                self.queue.add_after(key, plan.recheck)

    async def write(self, key: str, actions: Sequence[Action]) -> None:
        """Execute, and hold ``key`` back until the informers show the result. Raises ApiError."""
        expected = Expected()
        try:
            await self.writer.apply(actions, expected)
        finally:
            if expected.versions:
                expected.since = asyncio.get_running_loop().time()
                self._expected[key] = expected

    def _record(self, event: Emit) -> None:
        self.context.record(self.name, event)
