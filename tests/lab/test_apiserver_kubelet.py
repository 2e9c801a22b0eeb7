"""log and exec through a kubelet on its Unix socket, real WebSockets on both sides."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from apiserver_world import PODS, TOKEN, World, pod, world


async def _logs(request: web.Request) -> web.Response:
    if request.match_info["container"] == "gone":
        return web.Response(status=404, text="no such container")
    return web.Response(text=f"{request.path} {request.query_string}\n")


async def _exec(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
    await socket.prepare(request)
    await socket.send_bytes(b"\x01" + request.query_string.encode())
    async for message in socket:
        await socket.send_bytes(b"\x01echo " + message.data[1:])
        if message.data[1:] == b"bye":
            break
    await socket.send_bytes(b"\x03" + json.dumps({"status": "Success"}).encode())
    await socket.close()
    return socket


@contextlib.asynccontextmanager
async def kubelet(path: Path) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/containerLogs/{ns}/{pod}/{container}", _logs)
    app.router.add_get("/exec/{ns}/{pod}/{container}", _exec)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    path.parent.mkdir(parents=True)
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found, kubelet(tmp_path / "nodes/n1/kubelet.sock"):
        await found.do("POST", PODS, pod("p", node="n1"), 201)
        yield found


async def test_logs(lab: World) -> None:
    status, body = await lab.raw("GET", f"{PODS}/p/log?follow=true&tailLines=5")
    assert (status, body) == (200, b"/containerLogs/default/p/c follow=true&tailLines=5\n")
    refused = await lab.do("GET", f"{PODS}/p/log?container=nope", want=400)
    assert "container nope is not valid for pod p" in refused["message"]


async def test_no_node_no_kubelet(lab: World) -> None:
    await lab.do("POST", PODS, pod("loose"), 201)
    await lab.do("GET", f"{PODS}/loose/log", want=400)
    await lab.do("POST", PODS, pod("far", node="n9"), 201)
    assert "error dialing the kubelet" in (await lab.do("GET", f"{PODS}/far/log", want=500))["message"]


async def test_exec_is_a_tunnel(lab: World) -> None:
    url = f"{lab.url}{PODS}/p/exec?command=sh&command=-c&stdin=true&stdout=true&tty=false"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with lab.session.ws_connect(url, protocols=["v5.channel.k8s.io"], headers=headers) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        first = await socket.receive_bytes()
        assert first == b"\x01command=sh&command=-c&input=1&output=1&tty=false"
        await socket.send_bytes(b"\x00hello")
        assert await socket.receive_bytes() == b"\x01echo hello"
        await socket.send_bytes(b"\x00bye")
        assert await socket.receive_bytes() == b"\x01echo bye"
        assert json.loads((await socket.receive_bytes())[1:]) == {"status": "Success"}
        async with asyncio.timeout(5):
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_spdy_is_told_what_to_do(lab: World) -> None:
    refused = await lab.do(
        "POST", f"{PODS}/p/exec?command=sh", want=400, Upgrade="SPDY/3.1", Connection="Upgrade"
    )
    assert "towpath lab exec" in refused["message"]
