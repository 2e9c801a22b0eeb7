"""The HTTP side: authentication, the way from a path to a verb, errors as Status."""

import logging
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from towpath.lab.apiserver import asked
from towpath.lab.apiserver.auth import authenticate
from towpath.lab.apiserver.call import Call, Reply, Server, User
from towpath.lab.apiserver.documents import document
from towpath.lab.apiserver.errors import ApiError, internal, method_not_allowed, no_such_path, too_large
from towpath.lab.apiserver.paths import parse
from towpath.lab.apiserver.resources import Registry
from towpath.lab.apiserver.services import Allocator
from towpath.lab.apiserver.store import Store, StoreError, encode
from towpath.lab.apiserver.subresources import SUBRESOURCES, TRANSIENT
from towpath.lab.apiserver.verbs.create import create
from towpath.lab.apiserver.verbs.delete import delete, delete_collection
from towpath.lab.apiserver.verbs.patching import patch
from towpath.lab.apiserver.verbs.read import get, listing
from towpath.lab.apiserver.verbs.update import update
from towpath.lab.apiserver.verbs.watch import watch

MAX_BODY = 3 * 1024 * 1024  # upstream's limit
OPEN = frozenset(("/healthz", "/readyz", "/livez", "/version"))
log = logging.getLogger(__name__)


def make_app(
    store: Store, registry: Registry, tokens: dict[str, User], kubelets: Path, services: Allocator
) -> web.Application:
    """The server as an application; ``kubelets`` is the folder of the nodes' sockets (DIR/nodes)."""
    server = Server(store, registry, tokens, services, kubelets)
    return application(server)


def application(server: Server) -> web.Application:
    """One catch-all route: paths are the registry's business, which changes at run time."""
    app = web.Application(client_max_size=MAX_BODY)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await _answer(server, request)
        except ApiError as e:
            return _respond(Reply(encode(e.status()), e.code, headers=e.headers))
        except StoreError as e:
            return _respond(Reply(encode(internal(str(e)).status()), 500))
        except web.HTTPRequestEntityTooLarge:
            return _respond(Reply(encode(too_large(MAX_BODY).status()), 413))
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return _respond(Reply(encode(internal("see the server's log").status()), 500))

    app.router.add_route("*", "/{path:.*}", handle)
    return app


def _respond(answer: Reply) -> web.Response:
    headers = {"Content-Type": answer.content_type, "Cache-Control": "no-cache, private", **answer.headers}
    return web.Response(body=answer.body, status=answer.status, headers=headers)


async def _answer(server: Server, request: web.Request) -> web.StreamResponse:
    path = request.rel_url.raw_path
    if path in OPEN:
        if path == "/version":
            return _respond(document(server, ["version"], ""))
        return web.Response(text="ok")
    user = authenticate(server, request.headers.get("Authorization", ""))
    parts = [unquote(p) for p in path.strip("/").split("/")]
    accept = request.headers.get("Accept", "")
    if path == asked.PATH:
        return _respond(Reply(asked.document(server.asked)))
    if not (parts[0] == "api" and len(parts) > 2) and not (parts[0] == "apis" and len(parts) > 3):
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed("GET")
        return _respond(document(server, parts, accept))
    target = parse(parts)
    query = dict(reversed(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)))
    agent = request.headers.get("User-Agent", "")
    asked.note(server.asked, agent, user.name, request.method, target, query)
    resource = server.registry.find(target.group, target.version, target.plural)
    if target.namespace and not resource.namespaced:
        raise no_such_path()
    media = request.headers.get("Content-Type", "").partition(";")[0].strip()
    call = Call(resource, target, query, user, accept, media, agent=agent)
    if request.can_read_body:
        call.body = await request.read()
    if target.subresource:
        return await _subresource(server, call, request)
    if request.method == "GET" and "get" in resource.verbs and query.get("watch") in ("true", "1"):
        return await watch(server, call, request)
    answer = dispatch(server, call, request.method)
    if call.warnings:
        answer.headers["Warning"] = ", ".join(f'299 - "{_quoted(w)}"' for w in call.warnings)
    return _respond(answer)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').encode("latin-1", "replace").decode("latin-1")


async def _subresource(server: Server, call: Call, request: web.Request) -> web.StreamResponse:
    declared = call.resource.sub(call.target.subresource)
    if declared is None:
        raise no_such_path()
    if call.target.subresource == "status":
        return _respond(dispatch(server, call, request.method))
    serve = SUBRESOURCES[call.target.subresource]
    answer = await serve(server, call, request)
    return _respond(answer) if isinstance(answer, Reply) else answer


def dispatch(server: Server, call: Call, method: str) -> Reply:
    """The verb of a method on a collection, an object or its status. Raises ApiError."""
    r, named = call.resource, bool(call.target.name)
    if not named and method == "POST" and r.namespaced and not call.target.namespace:
        raise method_not_allowed("GET")
    if method == "POST" and not named and r.verbs == ("create",):
        return TRANSIENT[r.kind](server, call)
    verbs = {
        ("GET", True): ("get", get),
        ("HEAD", True): ("get", get),
        ("PUT", True): ("update", update),
        ("PATCH", True): ("patch", patch),
        ("DELETE", True): ("delete", delete),
        ("GET", False): ("list", listing),
        ("POST", False): ("create", create),
        ("DELETE", False): ("deletecollection", delete_collection),
    }
    verb, serve = verbs.get((method, named), ("", None))
    if serve is None or verb not in r.verbs or (call.target.subresource and verb == "delete"):
        raise method_not_allowed(
            ", ".join(m for (m, n), (v, _) in verbs.items() if n == named and v in r.verbs)
        )
    return serve(server, call)
