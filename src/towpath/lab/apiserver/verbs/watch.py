"""Watches: the history from a resourceVersion on, then each change as it is committed."""

import asyncio
import random
from collections.abc import Callable

from aiohttp import web

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.errors import ApiError, Obj, expired
from towpath.lab.apiserver.render import META, Tabular, View, view_of
from towpath.lab.apiserver.store import Event, Stored, encode
from towpath.lab.apiserver.verbs.read import asked_version, selection

BOOKMARK_SECONDS = 30.0
QUEUE = 16384  # frames a slow client may be behind before it is cut off
# In a lab of dozens of nodes every change wakes as many agents: there, those that come close together are
# sent together. Ten at a time cost an agent a third of what one by one do.
CROWD, TOGETHER = 50, 0.4


class Watcher:
    """Turns events into frames for one client, which ``drain`` takes from it."""

    def __init__(self, server: Server, call: Call, view: View) -> None:
        self._store, self._call, self._view = server.store, call, view
        self._registry = server.registry
        self._select, self._namespace = selection(call), call.target.namespace
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self.overrun = False

    def start(self, rv: int | None, initial: bool) -> Callable[[], None]:
        """Queue what there is to begin with, then listen; the answer ends it. Raises ApiError 410."""
        bucket, store = self._call.resource.bucket, self._store
        if rv is None or rv == 0 or initial:
            for stored in store.list(bucket, self._namespace or None):
                if self._select is None or self._select(stored.obj):
                    self._frames.append(self._frame("ADDED", stored))
        else:
            events = store.since(bucket, rv)
            if events is None:
                raise expired(f"too old resource version: {rv} ({store.bucket(bucket).floor})")
            for event in events:
                self._on_event(event)
        if initial:
            self._frames.append(self.bookmark(True))
        self._wake.set()
        return store.listen(bucket, self._on_event)

    def _wants(self, stored: Stored | None) -> bool:
        return stored is not None and (self._select is None or self._select(stored.obj))

    def _on_event(self, event: Event) -> None:
        new, old = event.new, event.old
        if self._namespace and new.namespace != self._namespace:
            return
        if self._select is None:
            kind = "DELETED" if event.deleted else "ADDED" if old is None else "MODIFIED"
        else:
            had, has = self._wants(old), not event.deleted and self._wants(new)
            if not had and not has:
                return
            kind = "DELETED" if not has else "MODIFIED" if had else "ADDED"
        key = self._view.key and f"{kind} {self._view.key} {self._call.resource.api_version}"
        frame = event.frames.get(key) if key else None
        if frame is None:
            frame = self._frame(kind, new)
            if key:
                event.frames[key] = frame
        if len(self._frames) >= QUEUE:
            self.overrun = True
        else:
            self._frames.append(frame)
        self._wake.set()

    def _frame(self, kind: str, stored: Stored) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self._view.frame(stored))

    def bookmark(self, initial_end: bool = False) -> bytes:
        """A frame that only carries the current resourceVersion."""
        r = self._call.resource
        meta: Obj = {"resourceVersion": str(self._store.rv), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        body: Obj = {"kind": r.kind, "apiVersion": r.api_version, "metadata": meta}
        if isinstance(self._view, Tabular):
            row = {
                "cells": [],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": meta},
            }
            body = {"kind": "Table", "apiVersion": META, "metadata": {"resourceVersion": str(self._store.rv)},
                    "columnDefinitions": [], "rows": [row]}  # fmt: skip
        return b'{"type":"BOOKMARK","object":%s}\n' % encode(body)

    @property
    def crowded(self) -> bool:
        """Whether many watch the same."""
        return len(self._store.bucket(self._call.resource.bucket).listeners) > CROWD

    def served(self) -> bool:
        """Whether the resource still exists: a CRD may have gone."""
        r = self._call.resource
        return (r.group, r.version, r.plural) in self._registry.resources

    async def drain(self, seconds: float) -> bytes:
        """All frames queued, waiting for one for so long; empty after a silence."""
        if not self._frames:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        frames, self._frames = self._frames, []
        self._wake.clear()
        return b"".join(frames)


def error_frame(error: ApiError) -> bytes:
    """An ERROR event."""
    return b'{"type":"ERROR","object":%s}\n' % encode(error.status())


async def watch(server: Server, call: Call, request: web.Request) -> web.StreamResponse:
    """Serve a watch until the client leaves or ``timeoutSeconds`` pass. Raises ApiError before it begins."""
    view = view_of(server, call)
    rv = asked_version(server, call)
    watcher = Watcher(server, call, view)
    initial = call.query.get("sendInitialEvents") in ("true", "1")
    bookmarks = call.query.get("allowWatchBookmarks") in ("true", "1")
    timeout = call.query.get("timeoutSeconds") or ""
    seconds = float(timeout) if timeout.isdigit() and timeout != "0" else random.uniform(1800, 3600)  # noqa: S311
    refused: ApiError | None = None
    stop: Callable[[], None] = lambda: None  # noqa: E731
    try:
        stop = watcher.start(rv, initial)
    except ApiError as e:
        refused = e  # upstream answers 200 and tells in the stream
    response = web.StreamResponse(headers={"Content-Type": _media(view)})
    response.enable_chunked_encoding()
    try:
        await response.prepare(request)
        if refused:
            await response.write(error_frame(refused))
        else:
            await _stream(response, watcher, seconds, bookmarks)
        await response.write_eof()
    finally:
        stop()
    return response


def _media(view: View) -> str:
    if isinstance(view, Tabular):
        return "application/json;as=Table;g=meta.k8s.io;v=v1"
    return "application/json"


async def _stream(response: web.StreamResponse, watcher: Watcher, seconds: float, bookmarks: bool) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not watcher.overrun and (left := end - loop.time()) > 0:
        data = await watcher.drain(min(left, BOOKMARK_SECONDS))
        if data:
            await response.write(data)
            await asyncio.sleep(TOGETHER if watcher.crowded else 0)
        elif not watcher.served():
            return
        elif bookmarks:
            await response.write(watcher.bookmark())
