"""A prober's log is read to its end, whatever becomes of the stream."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from towpath.api.core import Pod
from towpath.kube.client import Client
from towpath.kube.errors import NotFound, Unreachable
from towpath.kube.kinds import Kind
from towpath.probe import source
from towpath.probe.source import PodLog

STARTED, SLOTS, ENDED = b'{"is":"started"}\n', b'{"is":"slots"}\n', b'{"is":"ended"}\n'
SILENCE = None


class Streams(Client):
    """Each opening of the log gives what the next of ``scripts`` says; the API server has the pod or not."""

    def __init__(self, *scripts: list[bytes | Exception | None], there: bool = False) -> None:
        self.scripts, self.opened, self.there = list(scripts), 0, there

    async def get(
        self, kind: Kind[Any], name: str, namespace: str = "", *, subresource: str = "", timeout: float = 0.0
    ) -> Any:
        if not self.there:
            raise NotFound("get", "pod", "gone")
        return Pod()

    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, operation: str = "get"
    ) -> AsyncGenerator[bytes, None]:
        self.opened += 1
        for step in self.scripts.pop(0):
            if step is SILENCE:
                await asyncio.sleep(3600)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_SILENT", 0.05)
    monkeypatch.setattr(source, "_AGAIN", 0.0)


async def read(streams: Streams) -> list[bytes]:
    return [line async for line in PodLog(streams, "space", "pod").lines()]


async def test_a_stream_in_which_nothing_comes_is_opened_again() -> None:
    streams = Streams([SILENCE], [STARTED, SILENCE], [STARTED, SLOTS, ENDED])
    assert [line + b"\n" for line in await read(streams)] == [STARTED, STARTED, SLOTS, ENDED]
    assert streams.opened == 3


async def test_a_stream_that_breaks_within_a_line_is_opened_again() -> None:
    away = Unreachable("get", "log", "reset")
    streams = Streams([away], [STARTED[:5], away], [STARTED[:5], STARTED[5:] + ENDED])
    assert [line + b"\n" for line in await read(streams)] == [STARTED, ENDED]


async def test_a_pod_that_is_gone_has_no_more_to_say() -> None:
    assert await read(Streams([STARTED, NotFound("get", "log", "gone")])) == [STARTED.strip()]


async def test_a_kubelet_that_has_not_heard_of_its_new_pod_is_asked_again() -> None:
    unheard = NotFound("get", "log", 'pod "space/pod" does not exist')
    assert len(await read(Streams([unheard], [unheard], [STARTED, ENDED], there=True))) == 2
