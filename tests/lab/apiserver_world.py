"""The API server in this process, on loopback without TLS, and a client that speaks plain HTTP to it."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from towpath.lab.apiserver.app import application
from towpath.lab.apiserver.bootstrap import bootstrap
from towpath.lab.apiserver.builtins import builtin_registry
from towpath.lab.apiserver.call import Server, User
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store

TOKEN = "secret"
Obj = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"


class World:
    """``server`` is what the application works on; requests carry a valid token unless told otherwise."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, url: str) -> None:
        self.server, self.session, self.url = server, session, url

    async def raw(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {
            "Authorization": f"Bearer {TOKEN}",
            **({"Content-Type": "application/json"} if data else {}),
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        async with self.session.request(method, self.url + path, data=data, headers=sent) as r:
            self.headers = r.headers
            return r.status, await r.read()

    async def do(self, method: str, path: str, body: Any = None, want: int = 200, **headers: str) -> Obj:
        """The answer's JSON; asserts the status."""
        status, data = await self.raw(method, path, body, **headers)
        assert status == want, f"{method} {path} -> {status} {data.decode()}"
        found: Obj = json.loads(data)
        return found

    @contextlib.asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[AsyncIterator[Obj]]:
        """The events of a watch."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.get(self.url + path, headers=headers) as r:
            assert r.status == 200, await r.text()

            async def events() -> AsyncIterator[Obj]:
                async for line in r.content:
                    yield json.loads(line)

            yield events()


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A server with the state in ``folder``; kubelets' sockets are looked for in ``folder/nodes``."""
    store = Store(folder / "state.db")
    services = Allocator.of("10.43.0.0/16,fd00:10:43::/112")
    server = Server(
        store, builtin_registry(), {TOKEN: User("admin", "1", ("a",))}, services, folder / "nodes"
    )
    bootstrap(server, ["172.30.0.1", "fd00:172:30::1"])
    runner = web.AppRunner(
        application(server), access_log=None, handler_cancellation=True, shutdown_timeout=0.2
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            yield World(server, session, url)
    finally:
        await runner.cleanup()
        store.close()


def config_map(name: str, **data: str) -> Obj:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, node: str = "", **labels: str) -> Obj:
    """A Pod of one container, bound where ``node`` is given."""
    spec: Obj = {"containers": [{"name": "c", "image": "nginx"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def deployment(name: str) -> Obj:
    """A Deployment of two replicas."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
