"""Recorded events, against the fake API server's real HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.lab.controllers.actions import Emit, Reference
from towpath.lab.controllers.events import EventRecorder

ABOUT = Reference("v1", "Pod", "a", "default", "u1")


class Clock:
    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Recording:
    def __init__(self, server: FakeApiServer, recorder: EventRecorder, clock: Clock) -> None:
        self._server, self.recorder, self.clock = server, recorder, clock

    def events(self) -> list[dict[str, Any]]:
        return list(self._server.objects.get("core/v1/events", {}).values())

    def forget(self) -> None:
        self._server.objects["core/v1/events"].clear()

    def record(self, message: str, reason: str = "Started") -> None:
        self.recorder.record("kubelet", Emit(ABOUT, "Normal", reason, message))

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(40_000):
            if holds():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(self.events())


@pytest.fixture
async def recording() -> AsyncIterator[Recording]:
    server, clock = await FakeApiServer.start(), Clock()
    async with Client(server.config()) as client:
        recorder = EventRecorder(client, clock)
        task = asyncio.create_task(recorder.run())
        yield Recording(server, recorder, clock)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await server.down()


async def test_an_event_says_who_what_and_when(recording: Recording) -> None:
    recording.record("Started container web")
    await recording.until(lambda: len(recording.events()) == 1)
    (event,) = recording.events()
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "a",
        "namespace": "default",
        "uid": "u1",
    }
    assert (event["source"], event["reason"], event["count"]) == ({"component": "kubelet"}, "Started", 1)
    assert event["metadata"]["name"].startswith("a.")


async def test_repeated_ones_are_counted(recording: Recording) -> None:
    recording.record("again")
    await recording.until(lambda: len(recording.events()) == 1)
    recording.clock.now += 60
    recording.record("again")
    recording.record("again")
    await recording.until(lambda: recording.events()[0]["count"] == 3)
    (event,) = recording.events()
    assert event["firstTimestamp"] < event["lastTimestamp"]


async def test_floods_are_folded_until_the_window_is_over(recording: Recording) -> None:
    for number in range(30):
        recording.record(f"Created pod: web-{number}", "SuccessfulCreate")
    await recording.until(lambda: any(e["count"] == 20 for e in recording.events()))
    assert len(recording.events()) == 11
    folded = next(e for e in recording.events() if e["count"] == 20)
    assert folded["message"] == "(combined from similar events): Created pod: web-29"
    recording.clock.now += 700
    recording.record("Created pod: web-30", "SuccessfulCreate")
    await recording.until(lambda: len(recording.events()) == 12)


async def test_an_event_somebody_deleted_is_made_again(recording: Recording) -> None:
    recording.record("again")
    await recording.until(lambda: len(recording.events()) == 1)
    recording.forget()
    recording.record("again")
    recording.record("other")
    await recording.until(lambda: len(recording.events()) == 2)
    assert {e["message"]: e["count"] for e in recording.events()} == {"again": 2, "other": 1}
