"""Requests that are not for a resource: discovery, OpenAPI, version; rendered once per registry change."""

import hashlib
from collections.abc import Callable
from functools import partial

from towpath.lab.apiserver import discovery
from towpath.lab.apiserver.call import JSON, Reply, Server, reply
from towpath.lab.apiserver.errors import Obj, no_such_path
from towpath.lab.apiserver.schema.openapi import v2_document, v3_document
from towpath.lab.apiserver.schema.openapi_proto import encode_document
from towpath.lab.apiserver.store import encode

ROOTS = ["/api", "/api/v1", "/apis", "/healthz", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
_V2 = "com.github.proto-openapi.spec.v2"


def document(server: Server, parts: list[str], accept: str) -> Reply:
    """Answer of a path without resource. Raises ApiError 404."""
    registry = server.registry
    match parts:
        case ["version"]:
            return reply(discovery.VERSION)
        case ["api"] | ["apis"]:
            return _root(server, parts[0] == "api", accept)
        case ["api", version]:
            return _json(server, f"/api/{version}", lambda: discovery.resource_list(registry, "", version))
        case ["apis", group]:
            return reply(discovery.group(registry, group))
        case ["apis", group, version]:
            return _json(
                server, f"/apis/{group}/{version}", lambda: discovery.resource_list(registry, group, version)
            )
        case ["openapi", "v2"]:
            return _openapi_v2(server, accept)
        case ["openapi", "v3"]:
            return reply({"paths": {p: _v3_link(server, p) for p in _v3_paths(server)}})
        case ["openapi", "v3", *rest]:
            return Reply(_openapi_v3(server, "/".join(rest)))
        case [""] | []:
            return reply({"paths": ROOTS})
    raise no_such_path()


def _cached(server: Server, key: str, make: Callable[[], bytes]) -> bytes:
    generation = server.registry.generation
    found = server.documents.get(key)
    if found is None or found[0] != generation:
        found = server.documents[key] = (generation, make())
    return found[1]


def _json(server: Server, key: str, make: Callable[[], Obj]) -> Reply:
    return Reply(_cached(server, key, lambda: encode(make())))


def _root(server: Server, core: bool, accept: str) -> Reply:
    for part in accept.split(","):
        if "as=APIGroupDiscoveryList" in part:
            version = "v2" if "v=v2;" in f"{part};" else "v2beta1"
            key = f"aggregated {core} {version}"
            body = _cached(server, key, partial(_aggregated, server, core, version))
            return Reply(
                body, content_type=f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            )
    return reply(discovery.api_versions() if core else discovery.group_list(server.registry))


def _aggregated(server: Server, core: bool, version: str) -> bytes:
    return encode(discovery.aggregated(server.registry, core, version))


def _customs(server: Server) -> dict[tuple[str, str, str], Obj | None]:
    return {k: s.schema for k, s in server.schemas.items()}


def _v2(server: Server) -> Obj:
    return v2_document(list(server.registry), _customs(server))


def _openapi_v2(server: Server, accept: str) -> Reply:
    if _V2 in accept:
        body = _cached(server, "v2 protobuf", lambda: encode_document(_v2(server)))
        return Reply(body, content_type=f"application/{_V2}.v1.0+protobuf")
    return _json(server, "v2", lambda: _v2(server))


def _v3_paths(server: Server) -> list[str]:
    return [
        f"apis/{g}/{v}" if g else f"api/{v}" for g, vs in server.registry.group_versions().items() for v in vs
    ]


def _openapi_v3(server: Server, path: str) -> bytes:
    root, _, rest = path.partition("/")
    group, _, version = rest.rpartition("/")
    found = server.registry.of(group, version)
    if not found or (root == "api") != (group == ""):
        raise no_such_path()
    return _cached(server, f"v3 {path}", lambda: encode(v3_document(found, _customs(server))))


def _v3_link(server: Server, path: str) -> Obj:
    """The hash differs whenever the document may differ."""
    digest = hashlib.sha256(f"{path} {server.registry.generation}".encode()).hexdigest()[:32].upper()
    return {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
