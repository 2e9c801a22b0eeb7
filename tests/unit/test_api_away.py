"""An API server that does not answer for an hour: on a clock that the test turns."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from towpath.api.core import Node
from towpath.kube.client import Client
from towpath.kube.codec import Event, Listing
from towpath.kube.errors import Unreachable
from towpath.kube.kinds import NODES
from towpath.kube.reflector import Reflector, Selection

pytestmark = pytest.mark.looptime
HOUR = 3600.0


class Server:
    """What a reflector sees of a client: lists while ``up``, and refuses connections otherwise."""

    def __init__(self) -> None:
        self.up, self.tries = True, 0
        self.cut = asyncio.Event()
        self.nodes: list[Node] = []

    async def list(self, *_: Any, **__: Any) -> Listing[Node]:
        self.tries += 1
        if not self.up:
            raise Unreachable("list", "nodes", "connection refused")
        return Listing(items=self.nodes, resource_version="1")

    async def watch(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        self.tries += 1
        if not self.up:
            raise Unreachable("watch", "nodes", "connection refused")
        yield Event("OPENED", "1", ("", ""))
        await self.cut.wait()
        raise Unreachable("watch", "nodes", "connection reset")


async def test_what_is_known_stays_known_and_the_server_is_asked_calmly() -> None:
    server = Server()
    server.nodes = [Node()]
    changed: list[object] = []
    reflector: Reflector[Node] = Reflector(cast(Client, server), Selection(kind=NODES), changed.append)
    task = asyncio.create_task(reflector.run())
    await asyncio.sleep(10)
    assert reflector.listed.is_set()
    known = dict(reflector.objects)
    assert known
    heard = len(changed)
    server.up = False
    server.cut.set()
    before = server.tries
    await asyncio.sleep(HOUR)
    assert dict(reflector.objects) == known
    assert reflector.listed.is_set(), "what was listed once, was"
    assert len(changed) == heard, "nobody is told of anything"
    assert "refused" in str(reflector.problem)
    assert not task.done()
    assert 60 <= server.tries - before <= 600, "neither given up nor hammered"
    server.up = True
    server.cut.clear()
    await asyncio.sleep(60)
    assert not reflector.problem
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
