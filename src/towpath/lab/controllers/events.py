"""Events: recorded in the background, repeated ones counted, floods folded together."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import ApiError, NotFound
from towpath.lab.controllers.actions import Emit
from towpath.lab.controllers.objects_meta import format_time
from towpath.lab.controllers.resources import EVENTS

_SIMILAR = 10  # messages of one reason about one object; more are folded into one Event (client-go's number)
_WINDOW = 600.0  # seconds after which similar ones count anew
_REMEMBERED = 4096
_WAITING = 2000


class _Series(msgspec.Struct):
    """One Event object: what it says, how often, since when. ``name`` empty until it is written."""

    component: str
    event: Emit
    first: float
    last: float
    count: int = 1
    name: str = ""
    namespace: str = ""


class EventRecorder:
    """Takes events from anyone in the process; ``run`` writes them, one at a time, so that they delay nobody.

    Events are a courtesy: a failed write is dropped, and when too many wait the oldest are.
    """

    def __init__(self, client: Client, now: Callable[[], float], host: str = "") -> None:
        self._client, self._now, self._host = client, now, host
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._messages: OrderedDict[tuple[str, ...], tuple[float, set[str]]] = OrderedDict()
        self._dirty: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._wake = asyncio.Event()

    def record(self, component: str, event: Emit) -> None:
        """Note an event of ``component``; returns at once."""
        now = self._now()
        about = event.regarding
        group = (component, about.kind, about.namespace, about.name, about.uid, event.type, event.reason)
        event = self._folded(group, event, now)
        key = (*group, event.message)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(component, event, now, now)
            if len(self._series) > _REMEMBERED:
                self._series.popitem(last=False)
        else:
            series.count += 1
            series.last = now
            self._series.move_to_end(key)
        self._dirty[key] = None
        if len(self._dirty) > _WAITING:
            self._dirty.popitem(last=False)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                key, _ = self._dirty.popitem(last=False)
                series = self._series.get(key)
                if series is not None:
                    with contextlib.suppress(ApiError):
                        await self._write(series)

    def _folded(self, group: tuple[str, ...], event: Emit, now: float) -> Emit:
        since, seen = self._messages.get(group, (now, set()))
        if now - since > _WINDOW:
            since, seen = now, set()
        self._messages[group] = since, seen
        self._messages.move_to_end(group)
        if len(self._messages) > _REMEMBERED:
            self._messages.popitem(last=False)
        if event.message in seen or len(seen) < _SIMILAR:
            seen.add(event.message)
            return event
        # The message of the first folded one stays: a message that changed would be another series.
        return msgspec.structs.replace(event, message=f"(combined from similar events): {event.reason}")

    async def _write(self, series: _Series) -> None:
        if series.name:
            body = {"count": series.count, "lastTimestamp": format_time(series.last)}
            try:
                await self._client.patch(EVENTS.api, series.name, body, series.namespace)
            except NotFound:
                series.name = ""
            else:
                return
        about = series.event.regarding
        series.namespace = about.namespace or "default"
        name = f"{about.name}.{int(series.first * 1e9):x}{series.count:x}"
        await self._client.create(EVENTS.api, self._body(series, name), series.namespace)
        series.name = name

    def _body(self, series: _Series, name: str) -> dict[str, Any]:
        event = series.event
        source = {"component": series.component, **({"host": self._host} if self._host else {})}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": series.namespace},
            "involvedObject": msgspec.to_builtins(event.regarding),
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "source": source,
            "reportingComponent": series.component,
            "reportingInstance": self._host,
            "firstTimestamp": format_time(series.first),
            "lastTimestamp": format_time(series.last),
            "count": series.count,
        }
