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
_COMBINED = "(combined from similar events): "


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
        self._serial = 0

    def record(self, component: str, event: Emit) -> None:
        """Note an event of ``component``; returns at once."""
        now = self._now()
        about = event.regarding
        group = (component, about.kind, about.namespace, about.name, about.uid, event.type, event.reason)
        if self._flood(group, event.message, now):
            event = msgspec.structs.replace(event, message=f"{_COMBINED}{event.message}")
            key = (*group, _COMBINED)
        else:
            key = (*group, event.message)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(component, event, now, now)
            if len(self._series) > _REMEMBERED:
                self._series.popitem(last=False)
        else:
            series.count += 1
            series.last, series.event = now, event
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

    def _flood(self, group: tuple[str, ...], message: str, now: float) -> bool:
        """So many different messages of one kind that this one is folded into the others."""
        since, seen = self._messages.get(group, (now, set()))
        if now - since > _WINDOW:
            since, seen = now, set()
        self._messages[group] = since, seen
        self._messages.move_to_end(group)
        if len(self._messages) > _REMEMBERED:
            self._messages.popitem(last=False)
        if message not in seen and len(seen) >= _SIMILAR:
            return True
        seen.add(message)
        return False

    async def _write(self, series: _Series) -> None:
        if series.name:
            message, last = series.event.message, format_time(series.last)
            body = {"count": series.count, "lastTimestamp": last, "message": message}
            try:
                await self._client.patch(EVENTS.api, series.name, body, series.namespace)
            except NotFound:
                series.name = ""
            else:
                return
        about = series.event.regarding
        series.namespace = about.namespace or "default"
        self._serial = max(self._serial + 1, int(series.first * 1e9))
        name = f"{about.name}.{self._serial:x}"
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
