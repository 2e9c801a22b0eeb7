"""Subresources other than status, by name."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from towpath.lab.apiserver.call import Call, Reply, Server

Serve = Callable[[Server, Call, web.Request], Awaitable[Reply | web.StreamResponse]]
SUBRESOURCES: dict[str, Serve] = {}
