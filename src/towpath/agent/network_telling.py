"""Tells of a pod's networks: the annotation ``network-status``, and Events on the pod."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from towpath.api.core import Pod
from towpath.kube.client import Client
from towpath.kube.errors import Conflict, Invalid, KubeError, NotFound
from towpath.kube.kinds import EVENTS, PODS
from towpath.log import get_logger
from towpath.model.attachment import PodRef
from towpath.multinet.status import LEGACY_STATUS, STATUS

log = get_logger("towpath.networks")

_COMPONENT = "towpath"
_ANSWER_WITHIN = 3.0
_LONGEST = 1024
_AFTER = 0.1  # the runtime's answer goes first
_MOST_WAITING = 1000


class Telling:
    """Writes to the API. What it does not take is written later (``retry``); no pod waits for it long."""

    def __init__(
        self, client: Client, node: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client, self._node, self._now = client, node, now
        self._waiting: dict[tuple[str, str], tuple[PodRef, str]] = {}
        self._events: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """Finish Events that are being written, leave out those that are not yet."""
        self._closing.set()
        if self._events:
            _, late = await asyncio.wait(self._events, timeout=_ANSWER_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @property
    def waiting(self) -> tuple[PodRef, ...]:
        """Pods whose networks are not written yet."""
        return tuple(ref for ref, _ in self._waiting.values())

    async def status(self, ref: PodRef, text: str) -> None:
        """Write the annotation; returns when it is written, or will be later."""
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                await self._write(ref, text)
        except (KubeError, TimeoutError) as error:
            log.warning("network_status_not_written", pod=f"{ref.namespace}/{ref.name}", error=str(error))
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[ref.namespace, ref.name] = ref, text

    async def retry(self) -> None:
        """Write what could not be written before."""
        for key, (ref, text) in list(self._waiting.items()):
            try:
                await self._write(ref, text)
            except KubeError as error:
                log.info("network_status_not_written", pod=f"{ref.namespace}/{ref.name}", error=str(error))
                return
            if self._waiting.get(key) == (ref, text):
                del self._waiting[key]

    def forget(self, ref: PodRef) -> None:
        """It has no networks any more."""
        self._waiting.pop((ref.namespace, ref.name), None)

    async def _write(self, ref: PodRef, text: str) -> None:
        """A patch of this annotation, under its two names: nobody else's change is lost. Another pod of the
        name is not written to: the API server refuses another UID. A pod that is gone needs none.
        """
        meta: dict[str, Any] = {"annotations": {STATUS: text, LEGACY_STATUS: text}}
        if ref.uid:
            meta["uid"] = ref.uid
        try:
            await self._client.patch(
                PODS, ref.name, {"metadata": meta}, ref.namespace, type="merge", subresource="status"
            )
        except (NotFound, Conflict, Invalid) as error:
            log.info("network_status_refused", pod=f"{ref.namespace}/{ref.name}", error=str(error))

    def event(self, pod: Pod, reason: str, message: str, *, warning: bool) -> None:
        """Write an Event on the pod, without waiting for it."""
        task = asyncio.create_task(self._event(pod, reason, message, "Warning" if warning else "Normal"))
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _event(self, pod: Pod, reason: str, message: str, kind: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AFTER):
                await self._closing.wait()
            return
        meta = pod.metadata
        stamp = self._now().astimezone(UTC)
        digest = hashlib.sha256(f"{meta.uid}{reason}{message}".encode()).hexdigest()[:16]
        text = stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"{meta.name[:200].rstrip('.-')}.{digest}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…",
            "source": {"component": _COMPONENT, "host": self._node},
            "reportingComponent": _COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": text,
            "lastTimestamp": text,
            "count": 1,
        }
        try:
            await self._client.create(EVENTS, event, meta.namespace)
        except Conflict:  # the same was said before
            await self._renew(name, meta.namespace, text)
        except KubeError as error:
            log.info("event_not_written", pod=f"{meta.namespace}/{meta.name}", error=str(error))

    async def _renew(self, name: str, namespace: str, stamp: str) -> None:
        try:
            await self._client.patch(EVENTS, name, {"lastTimestamp": stamp}, namespace)
        except KubeError as error:
            log.debug("event_not_renewed", event=f"{namespace}/{name}", error=str(error))
