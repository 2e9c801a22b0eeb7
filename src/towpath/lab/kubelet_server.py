"""The kubelet's HTTP endpoints on its Unix socket: container logs and exec, with the real kubelet's paths."""

import asyncio
import time
from pathlib import Path
from typing import Protocol

from aiohttp import web

from towpath.lab.kubelet_containers import log_folder
from towpath.lab.kubelet_exec import ExecStreams, subprotocol
from towpath.lab.kubelet_logs import BadLogOptions, log_options, log_path, read
from towpath.lab.kubelet_pod import PodWorker
from towpath.lab.kubelet_status import ContainerState
from towpath.lab.runtime_api import Exec, Runtime


class Pods(Protocol):
    """What the endpoints need of the kubelet."""

    @property
    def runtime(self) -> Runtime:
        """The node's runtime."""
        ...

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod."""
        ...


async def serve(path: Path, pods: Pods) -> None:
    """Serve until cancelled."""
    path.unlink(missing_ok=True)
    endpoints = _Endpoints(pods)
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", endpoints.logs)
    app.router.add_route("*", "/exec/{namespace}/{pod}/{container}", endpoints.exec)
    app.router.add_get("/healthz", endpoints.healthz)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class _Endpoints:
    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def _container(self, request: web.Request) -> tuple[PodWorker, ContainerState]:
        where = request.match_info
        worker = self._pods.worker(where["namespace"], where["pod"])
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{where["pod"]}" not found on this node')
        for state in worker.containers.all():
            if state.name == where["container"]:
                return worker, state
        raise web.HTTPNotFound(text=f"container {where['container']} not found in pod {where['pod']}")

    async def healthz(self, _: web.Request) -> web.Response:
        """ok"""
        return web.Response(text="ok")

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """``/containerLogs``."""
        worker, state = self._container(request)
        try:
            options = log_options(request.query, time.time())
        except BadLogOptions as bad:
            raise web.HTTPBadRequest(text=str(bad)) from bad
        path = log_path(Path(log_folder(worker.pod)), state.name, state.restarts, options)
        if not path.exists():
            which = "previous terminated container" if options.previous else "container"
            reason = state.waiting or "not started"
            raise web.HTTPBadRequest(
                text=f'{which} "{state.name}" in pod "{worker.key}" is waiting to start: {reason}'
            )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        container_id = state.id
        async for piece in read(path, options, lambda: state.running and state.id == container_id):
            await response.write(piece)
        await response.write_eof()
        return response

    async def exec(self, request: web.Request) -> web.WebSocketResponse:
        """``/exec`` by WebSocket, channel protocol v4 or v5."""
        _, state = self._container(request)
        query = request.query
        command = query.getall("command", [])
        if not command:
            raise web.HTTPBadRequest(text="you must specify at least one command for the container")
        if not state.running:
            raise web.HTTPBadRequest(text=f'container "{state.name}" is not running')
        protocols = subprotocol(request.headers.getall("Sec-WebSocket-Protocol", []))
        if not protocols:
            raise web.HTTPForbidden(text="exec here speaks v4.channel.k8s.io and v5.channel.k8s.io")
        tty = query.get("tty") in ("true", "1")
        exec_ = Exec(id=state.id, argv=tuple(command), env={"TERM": "xterm"} if tty else {}, tty=tty)
        socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0, autoping=True)
        await socket.prepare(request)
        wants_stdin = query.get("input", query.get("stdin")) in ("true", "1")
        streams = ExecStreams(socket, self._pods.runtime.path, exec_, stdin=wants_stdin)
        await streams.run()
        await socket.close()
        return socket
