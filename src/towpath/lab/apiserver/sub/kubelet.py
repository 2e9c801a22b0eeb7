"""``log``, ``exec`` and ``attach``: the way through to the kubelet of the pod's node, on its Unix socket."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.errors import ApiError, Obj, bad_request, internal
from towpath.lab.apiserver.naming import existing

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
MAX_MESSAGE = 4 * 1024 * 1024
_CONNECT = aiohttp.ClientTimeout(total=None, sock_connect=5)


def _container(pod: Obj, asked: str) -> str:
    """The container meant. Raises ApiError 400 as upstream words it."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [
        c["name"]
        for key in ("containers", "initContainers", "ephemeralContainers")
        for c in spec.get(key) or ()
    ]
    if asked:
        if asked not in names:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    main = [c["name"] for c in spec["containers"]]
    if len(main) == 1:
        return str(main[0])
    annotated = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if annotated in names:
        return str(annotated)
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]")


def _route(server: Server, call: Call, verb: str, query: str) -> tuple[Path, str]:
    """The kubelet's socket and the URL to ask it. Raises ApiError."""
    stored = existing(server, call)
    container = _container(stored.obj, call.query.get("container") or "")
    node = stored.obj["spec"].get("nodeName")
    if not node:
        raise bad_request(f"pod {stored.name} does not have a host assigned")
    path = f"/{verb}/{stored.namespace}/{stored.name}/{container}"
    return server.kubelets / node / "kubelet.sock", f"http://kubelet{path}" + (f"?{query}" if query else "")


def _unreachable(socket: Path, error: Exception) -> ApiError:
    return internal(f"error dialing the kubelet at {socket}: {error}")


async def _refused(response: aiohttp.ClientResponse) -> ApiError:
    text = (await response.text()).strip()
    if response.status == 404:
        return ApiError(404, "NotFound", text or "the kubelet does not know the container", {})
    return ApiError(response.status, "BadRequest" if response.status == 400 else "InternalError", text)


async def log(server: Server, call: Call, request: web.Request) -> web.StreamResponse:
    """GET of a container's output. Raises ApiError."""
    socket, url = _route(server, call, "containerLogs", request.rel_url.raw_query_string)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_CONNECT) as session,
            session.get(url) as upstream,
        ):
            if upstream.status != 200:
                raise await _refused(upstream)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except (aiohttp.ClientConnectorError, OSError) as e:
        raise _unreachable(socket, e) from e


async def execute(server: Server, call: Call, request: web.Request) -> web.StreamResponse:
    """WebSocket of ``exec``. Raises ApiError 400 for SPDY, which kubectl before 1.31 speaks."""
    return await _tunnel(server, call, request, "exec")


async def attach(server: Server, call: Call, request: web.Request) -> web.StreamResponse:
    """WebSocket of ``attach``. Raises ApiError 400 for SPDY."""
    return await _tunnel(server, call, request, "attach")


def _kubelet_query(raw: str) -> str:
    """The kubelet's names of the streams: ``input`` for ``stdin`` and so on."""
    names = {"stdin": "input", "stdout": "output", "stderr": "error"}
    parts = [p.partition("=") for p in raw.split("&") if p and not p.startswith("container=")]
    return "&".join(
        f"{names.get(k, k)}={'1' if k in names and v in ('true', '1') else v}" for k, _, v in parts
    )


async def _tunnel(server: Server, call: Call, request: web.Request, verb: str) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request(
            f"{verb} is served over WebSocket only: use kubectl 1.31 or newer (1.30 with "
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true), or towpath lab exec"
        )
    socket, url = _route(server, call, verb, _kubelet_query(request.rel_url.raw_query_string))
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    protocols = [p for p in PROTOCOLS if p in offered]
    if not protocols:
        raise bad_request(f"no protocol in common: got {offered}, want one of {list(PROTOCOLS)}")
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)), timeout=_CONNECT) as session,
            session.ws_connect(url, protocols=protocols, max_msg_size=MAX_MESSAGE) as upstream,
        ):
            chosen = upstream.protocol or protocols[-1]
            client = web.WebSocketResponse(protocols=(chosen,), max_msg_size=MAX_MESSAGE)
            await client.prepare(request)
            await _copy_both(client, upstream)
            return client
    except aiohttp.WSServerHandshakeError as e:
        raise ApiError(e.status, "InternalError", f"the kubelet refused: {e.message}") from e
    except (aiohttp.ClientConnectorError, OSError) as e:
        raise _unreachable(socket, e) from e


async def _copy(source: Any, sink: Any) -> None:
    """Messages of one side to the other until either closes."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)


async def _copy_both(client: web.WebSocketResponse, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Until the kubelet is done (its status comes last) or the client leaves."""
    tasks = [asyncio.create_task(_copy(client, upstream)), asyncio.create_task(_copy(upstream, client))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await upstream.close()
        await client.close()
