"""The one place where controllers' decisions become requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, ApiError, ApiRefused, Conflict, NotFound
from towpath.lab.controllers.actions import Action, Create, Delete, Emit, Patch

_AT_ONCE = 8


class Expected:
    """What a controller wrote: the versions its informers must have seen before it may decide again."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.since = 0.0

    def note(self, id: str, version: str) -> None:
        """An object of kind ``id`` was written and is now at ``version``."""
        if version.isdigit():
            self.versions[id] = max(self.versions.get(id, 0), int(version))


class Writer:
    """Executes actions. ``record`` takes the Events."""

    def __init__(self, client: Client, record: Callable[[Emit], None]) -> None:
        self._client, self._record = client, record

    async def apply(self, actions: Sequence[Action], expected: Expected) -> None:
        """In order; runs of creations, or of deletions, with slow start: 1, 2, 4, 8 at a time.

        Raises the first ApiError; what was written before it is in ``expected``.
        """
        at = 0
        while at < len(actions):
            end, width = at + 1, 1
            while end < len(actions) and type(actions[end]) is type(actions[at]) is not Patch:
                end += 1
            while at < end:
                batch = actions[at : min(at + width, end)]
                await self._together([self._one(a, expected) for a in batch])
                at += len(batch)
                width = min(_AT_ONCE, width * 2)

    async def _together(self, steps: Sequence[Awaitable[None]]) -> None:
        if len(steps) == 1:
            await steps[0]
            return
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _one(self, action: Action, expected: Expected) -> None:
        match action:
            case Create():
                await self._create(action, expected)
            case Patch():
                await self._patch(action, expected)
            case Delete():
                await self._delete(action)
            case Emit():
                self._record(action)

    async def _create(self, action: Create, expected: Expected) -> None:
        resource = action.resource
        body: dict[str, Any] = {"apiVersion": resource.api_version, "kind": resource.kind, **action.body}
        try:
            made = await self._client.create(
                resource.api, body, action.namespace, subresource=action.subresource
            )
        except AlreadyExists:
            return
        except ApiError as error:
            if action.subresource and isinstance(error, NotFound):
                return
            if action.failure and not _namespace_ends(error):
                self._tell(action.failure, error=error.reason)
            raise
        expected.note(resource.id, made.metadata.resource_version)
        if action.event:
            self._tell(action.event, name=made.metadata.name)

    async def _patch(self, action: Patch, expected: Expected) -> None:
        try:
            made = await self._client.patch(
                action.resource.api,
                action.name,
                action.body,
                action.namespace,
                subresource=action.subresource,
            )
        except NotFound:
            return
        expected.note(action.resource.id, made.metadata.resource_version)
        if action.event:
            self._tell(action.event, name=action.name)

    async def _delete(self, action: Delete) -> None:
        try:
            await self._client.delete(
                action.resource.api,
                action.name,
                action.namespace,
                uid=action.uid,
                grace_seconds=action.grace,
                propagation=action.propagation or None,  # type: ignore[arg-type]
            )
        except (NotFound, Conflict):
            return
        if action.event:
            self._tell(action.event, name=action.name)

    def _tell(self, event: Emit, **values: str) -> None:
        message = event.message
        for name, value in values.items():
            message = message.replace(f"{{{name}}}", value)
        self._record(msgspec.structs.replace(event, message=message))


def _namespace_ends(error: ApiError) -> bool:
    """Creation in a namespace that is being deleted is refused, and nobody needs an Event of that."""
    return isinstance(error, ApiRefused) and error.status == 403 and "terminat" in error.reason
