"""Events on pods and nodes, counted instead of repeated, never in the way of work."""

import asyncio
import time
import uuid
from typing import Any

from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import EVENTS
from towpath.lab.kubelet_status import rfc3339
from towpath.log import get_logger

_KEPT = 200

log = get_logger(__name__)


class Recorder:
    """Writes Events in the background; what cannot be written is logged."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._queue: asyncio.Queue[tuple[dict[str, Any], str, str, str]] = asyncio.Queue(maxsize=1000)

    def record(self, about: dict[str, Any], type_: str, reason: str, message: str) -> None:
        """``about`` an ObjectReference; ``type_`` Normal or Warning. Dropped when far behind."""
        if not self._queue.full():
            self._queue.put_nowait((about, type_, reason, message[:1024]))

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            about, type_, reason, message = await self._queue.get()
            try:
                await self._write(about, type_, reason, message)
            except KubeError as refused:
                log.info("event_not_recorded", reason=reason, message=message, error=str(refused))

    async def _write(self, about: dict[str, Any], type_: str, reason: str, message: str) -> None:
        namespace = about.get("namespace") or "default"
        key = (str(about.get("uid")), reason, message)
        now = rfc3339(time.time())
        if key in self._known:
            name, count = self._known[key]
            self._known[key] = (name, count + 1)
            change = {"count": count + 1, "lastTimestamp": now}
            await self._client.patch(EVENTS, name, change, namespace)
            return
        name = f"{about['name']}.{uuid.uuid4().hex[:16]}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": type_,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._client.create(EVENTS, event, namespace)
        self._known[key] = (name, 1)
        if len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
