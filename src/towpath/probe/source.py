"""Where a prober's lines come from: a pod's log, or (in a lab) a process in a namespace."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

from towpath.kube.client import Client
from towpath.kube.errors import ApiError, NotFound
from towpath.kube.kinds import PODS
from towpath.probe.plan import Plan

_AGAIN, _SILENT = 0.3, 15.0
_FINISHED = ("Succeeded", "Failed")


class Source(Protocol):
    """A running prober."""

    name: str

    def lines(self) -> AsyncGenerator[bytes, None]:
        """Its lines as they come, until it ended."""

    async def stop(self) -> None:
        """Ask it to end; its last lines still come."""


class Outside(Protocol):
    """A host outside of the cluster that can answer and ask: a lab has one."""

    addresses: tuple[str, ...]

    async def answer(self) -> None:
        """Have it listen on the target's ports."""

    async def ask(self, plan: Plan) -> Source:
        """Have it carry out a plan."""

    def be_on_time(self) -> None:
        """Everything runs now: give it the processor in time, where that can be done from here."""

    async def close(self) -> None:
        """End both."""


class PodLog:
    """A prober in a pod, read through the API (``pods/log?follow``).

    A stream that breaks (the API server restarts), or in which nothing comes though a prober always has
    something to say (kubelets miss the first line of a log they begin to follow too early), is opened again
    from the log's beginning: what comes twice is recognised by its slot numbers. "Not found" ends it only
    when the API server has no such pod: a kubelet that has not heard of its new pod yet answers so, too.
    """

    def __init__(self, client: Client, namespace: str, pod: str) -> None:
        self.name = pod
        self._client, self._namespace = client, namespace
        self._path = PODS.path(namespace, pod, "log")

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Until its prober said that it ended, or the pod is finished or gone."""
        while True:
            rest = b""
            try:
                stream = self._client.stream(self._path, query={"follow": "true"})
                async with contextlib.aclosing(stream) as pieces:
                    while True:
                        async with asyncio.timeout(_SILENT):
                            piece = await anext(pieces, b"")
                        if not piece:
                            break
                        *complete, rest = (rest + piece).split(b"\n")
                        for line in complete:
                            yield line
                            if b'"is":"ended"' in line:
                                return
                if (await self._client.get(PODS, self.name, self._namespace)).status.phase in _FINISHED:
                    return
            except NotFound:
                if await self._is_gone():
                    return
            except (ApiError, TimeoutError):
                pass  # not started yet, or the API server is away
            await asyncio.sleep(_AGAIN)

    async def _is_gone(self) -> bool:
        try:
            await self._client.get(PODS, self.name, self._namespace)
        except NotFound:
            return True
        except ApiError:
            pass
        return False

    async def stop(self) -> None:
        """Delete the pod: SIGTERM, and five seconds to say the last."""
        await self._client.delete(PODS, self.name, self._namespace)
