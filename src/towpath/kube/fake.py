"""An API server that behaves, for tests: real HTTP on loopback, optimistic concurrency, watches, faults.

It knows no kinds: every path of the API's shape is a collection, empty until something is put there. The
faults are those a client meets: being down, cut streams, silence, 410 at the start and in a stream, expired
continue tokens, refusals of any status.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import msgspec

from towpath.kube import fakehttp
from towpath.kube.config import ClientConfig
from towpath.kube.kinds import Kind

Raw = dict[str, Any]


class Target(NamedTuple):
    """A request path, taken apart."""

    collection: str  # "core/v1/pods"
    namespace: str
    name: str
    subresource: str


class _Watcher(NamedTuple):
    target: Target
    selectors: dict[str, str]
    queue: "asyncio.Queue[bytes | None]"


class FakeApiServer:
    """``await FakeApiServer.start()``; ``config()`` is what a Client needs to reach it.

    ``requests`` logs (method, target) of everything asked. ``token`` non-empty is demanded of everybody.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        ca: bytes = b"",
        bind: Callable[[int], socket.socket] | None = None,
    ) -> None:
        self.objects: dict[str, dict[tuple[str, str], Raw]] = {}
        self.requests: list[tuple[str, str]] = []
        self.token = ""
        self.muted = False
        self._tls, self._ca = tls, ca
        self._version = 100
        self._oldest = 0
        self._log: list[tuple[int, str, str, Raw]] = []
        self.served = {
            ("networking.k8s.io", "v1"): ["networkpolicies"],
            ("discovery.k8s.io", "v1"): ["endpointslices"],
        }
        """The resources that discovery tells of, by group and version; all others work all the same."""
        self._watchers: list[_Watcher] = []
        self._failures: deque[tuple[int, dict[str, str]]] = deque()
        self._server = fakehttp.Server(self._answer, bind or fakehttp.loopback)
        self._port = 0
        self._watched = asyncio.Condition()

    @classmethod
    async def start(
        cls,
        tls: ssl.SSLContext | None = None,
        ca: bytes = b"",
        bind: Callable[[int], socket.socket] | None = None,
    ) -> Self:
        """Listen on a free port of 127.0.0.1. ``bind`` makes the socket elsewhere (another namespace)."""
        server = cls(tls, ca, bind)
        await server.up()
        return server

    def config(self, **changes: Any) -> ClientConfig:
        """How to reach this server."""
        scheme = "https" if self._tls else "http"
        base = ClientConfig(server=f"{scheme}://127.0.0.1:{self._port}", source="fake", ca=self._ca)
        return msgspec.structs.replace(base, **changes)

    # -- what a test does to the cluster ---------------------------------------------------------------

    def put(self, kind: Kind[Any], obj: Raw) -> Raw:
        """Create or replace, as some other client would."""
        meta = obj["metadata"]
        collection = f"{kind.group or 'core'}/{kind.version}/{kind.plural}"
        key = (meta.get("namespace", ""), meta["name"])
        known = key in self.objects.get(collection, {})
        return self._store("MODIFIED" if known else "ADDED", collection, key, obj)

    def remove(self, kind: Kind[Any], name: str, namespace: str = "") -> None:
        """Delete, as some other client would."""
        collection = f"{kind.group or 'core'}/{kind.version}/{kind.plural}"
        obj = self.objects[collection].pop((namespace, name))
        self._emit("DELETED", collection, obj)

    def get(self, kind: Kind[Any], name: str, namespace: str = "") -> Raw:
        """The object as stored. Raises KeyError."""
        return self.objects[f"{kind.group or 'core'}/{kind.version}/{kind.plural}"][namespace, name]

    def compact(self) -> None:
        """Forget history: watches from before now answer 410."""
        self._oldest = self._version
        self._log.clear()

    def expire_streams(self) -> None:
        """A 410 in the stream of every watch, then its end."""
        self.compact()
        self.send_line(msgspec.json.encode({"type": "ERROR", "object": _status(410, "Expired", "too old")}))
        self.cut_streams()

    def bookmark(self) -> None:
        """A bookmark to every watch, shaped as a real server's: an empty object, nulls included."""
        self._version += 1
        meta = {"resourceVersion": str(self._version), "creationTimestamp": None}
        obj = {"kind": "Pod", "metadata": meta, "spec": {"containers": None}, "status": {}}
        self.send_line(msgspec.json.encode({"type": "BOOKMARK", "object": obj}))

    def send_line(self, line: bytes) -> None:
        """Anything at all, to every watch."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(line)

    def cut_streams(self) -> None:
        """End every watch, properly."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)

    def fail(self, status: int, times: int = 1, **headers: str) -> None:
        """Refuse the next requests. Underscores in header names stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._failures.extend([(status, named)] * times)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    async def watched(self, count: int = 1) -> None:
        """Wait until ``count`` watches are open."""
        async with self._watched:
            await self._watched.wait_for(lambda: len(self._watchers) >= count)

    async def down(self) -> None:
        """Stop: refuse connections, cut those that are open without a word."""
        await self._server.close()
        self._watchers.clear()

    async def up(self) -> None:
        """Come (back) on the same port."""
        self._port = await self._server.listen(self._port, self._tls)

    # -- what a client sees ----------------------------------------------------------------------------

    async def _answer(self, request: fakehttp.Request) -> fakehttp.Answer:
        self.requests.append((request.method, request.target))
        if self._failures:
            status, headers = self._failures.popleft()
            return fakehttp.Answer(status, _status(status, "", "told to fail"), headers)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return fakehttp.Answer(401, _status(401, "Unauthorized", "Unauthorized"))
        if (found := self._discovery(request.path)) is not None:
            return found
        target = parse_target(request.path)
        match request.method:
            case "GET" if request.query.get("watch"):
                return self._watch(target, request)
            case "GET" if not target.name:
                return self._list(target, request.query)
            case "GET":
                return self._with_object(target)
            case "POST":
                return self._create(target, msgspec.json.decode(request.body))
            case "PUT":
                return self._update(target, msgspec.json.decode(request.body))
            case "PATCH":
                return self._patch(target, request)
            case "DELETE":
                return self._delete(target)
        return fakehttp.Answer(405, _status(405, "MethodNotAllowed", request.method))

    def _discovery(self, path: str) -> fakehttp.Answer | None:
        """Groups, and the resources of one; None for other paths."""
        match path.strip("/").split("/"):
            case ["apis"]:
                versions: dict[str, list[dict[str, str]]] = {}
                for group, version in self.served:
                    versions.setdefault(group, []).append({"version": version})
                groups = [{"name": group, "versions": known} for group, known in versions.items()]
                return fakehttp.Answer(200, {"kind": "APIGroupList", "groups": groups})
            case ["apis", group, version]:
                if (group, version) not in self.served:
                    return fakehttp.Answer(404, _status(404, "NotFound", f"no {group}/{version}"))
                resources = [{"name": plural} for plural in self.served[group, version]]
                return fakehttp.Answer(200, {"kind": "APIResourceList", "resources": resources})
        return None

    def _list(self, target: Target, query: dict[str, str]) -> fakehttp.Answer:
        start, version = 0, self._version
        if token := query.get("continue"):
            start, version = map(int, token.split("@"))
            if version < self._oldest:
                return fakehttp.Answer(410, _status(410, "Expired", "continue token expired"))
        chosen = [
            obj
            for key, obj in sorted(self.objects.get(target.collection, {}).items())
            if (not target.namespace or key[0] == target.namespace) and _selected(obj, query)
        ]
        end = start + int(query.get("limit") or len(chosen) + 1)
        meta = {"resourceVersion": str(version)}
        if end < len(chosen):
            meta["continue"] = f"{end}@{version}"
        return fakehttp.Answer(200, {"kind": "List", "metadata": meta, "items": chosen[start:end] or None})

    def _watch(self, target: Target, request: fakehttp.Request) -> fakehttp.Answer:
        since = int(request.query.get("resourceVersion") or 0)
        if since < self._oldest:
            return fakehttp.Answer(410, _status(410, "Expired", f"too old resource version: {since}"))
        watcher = _Watcher(target, request.query, asyncio.Queue())
        for version, type_, collection, obj in self._log:
            if version > since:
                self._offer(watcher, type_, collection, obj)
        self._watchers.append(watcher)

        async def lines() -> fakehttp.Pieces:
            async with self._watched:
                self._watched.notify_all()
            try:
                while (line := await watcher.queue.get()) is not None:
                    if not self.muted:
                        yield line + b"\n"
            finally:
                with contextlib.suppress(ValueError):
                    self._watchers.remove(watcher)

        return fakehttp.Answer(200, lines())

    def _with_object(self, target: Target) -> fakehttp.Answer:
        obj = self.objects.get(target.collection, {}).get((target.namespace, target.name))
        if obj is None:
            return fakehttp.Answer(404, _status(404, "NotFound", f'"{target.name}" not found'))
        return fakehttp.Answer(200, obj)

    def _create(self, target: Target, obj: Raw) -> fakehttp.Answer:
        key = (target.namespace, obj["metadata"]["name"])
        if key in self.objects.get(target.collection, {}):
            return fakehttp.Answer(409, _status(409, "AlreadyExists", f'"{key[1]}" already exists'))
        return fakehttp.Answer(201, self._store("ADDED", target.collection, key, obj))

    def _update(self, target: Target, obj: Raw) -> fakehttp.Answer:
        answer = self._with_object(target)
        if answer.status != 200:
            return answer
        wanted = obj["metadata"].get("resourceVersion", "")
        if wanted not in ("", answer.body["metadata"]["resourceVersion"]):
            return fakehttp.Answer(409, _status(409, "Conflict", "the object has been modified"))
        key = (target.namespace, target.name)
        return fakehttp.Answer(200, self._store("MODIFIED", target.collection, key, obj))

    def _patch(self, target: Target, request: fakehttp.Request) -> fakehttp.Answer:
        answer = self._with_object(target)
        if answer.status != 200:
            return answer
        strategic = "strategic" in request.headers.get("content-type", "")
        merged = merge(answer.body, msgspec.json.decode(request.body), strategic=strategic)
        key = (target.namespace, target.name)
        return fakehttp.Answer(200, self._store("MODIFIED", target.collection, key, merged))

    def _delete(self, target: Target) -> fakehttp.Answer:
        answer = self._with_object(target)
        if answer.status == 200:
            del self.objects[target.collection][target.namespace, target.name]
            self._emit("DELETED", target.collection, answer.body)
        return answer

    def _store(self, type_: str, collection: str, key: tuple[str, str], obj: Raw) -> Raw:
        meta = {**obj["metadata"], "name": key[1]}
        if key[0]:
            meta["namespace"] = key[0]
        obj = {**obj, "metadata": meta}
        self._emit(type_, collection, obj)
        self.objects.setdefault(collection, {})[key] = obj
        return obj

    def _emit(self, type_: str, collection: str, obj: Raw) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, type_, collection, obj))
        for watcher in self._watchers:
            self._offer(watcher, type_, collection, obj)

    def _offer(self, watcher: _Watcher, type_: str, collection: str, obj: Raw) -> None:
        target = watcher.target
        space = obj["metadata"].get("namespace", "")
        if collection == target.collection and target.namespace in ("", space):
            if not _selected(obj, watcher.selectors):
                return
            watcher.queue.put_nowait(msgspec.json.encode({"type": type_, "object": obj}))


def parse_target(path: str) -> Target:
    """``/api/v1/namespaces/a/pods/b/status`` and the like. Raises ValueError on anything else."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = f"core/{parts[1]}", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        raise ValueError(f"not an API path: {path}")
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural, name, sub = (*rest, "", "")[:3]
    return Target(f"{group}/{plural}", namespace, name, sub)


def merge(old: Any, patch: Any, *, strategic: bool = False) -> Any:
    """RFC 7386; ``strategic`` also merges lists of objects that carry a ``type`` (conditions, addresses)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif (
            strategic and isinstance(value, list) and all(isinstance(v, dict) and "type" in v for v in value)
        ):
            by_type = {item["type"]: item for item in result.get(name) or []}
            for item in value:
                by_type[item["type"]] = merge(by_type.get(item["type"]), item, strategic=True)
            result[name] = list(by_type.values())
        else:
            result[name] = merge(result.get(name), value, strategic=strategic)
    return result


def _selected(obj: Raw, query: dict[str, str]) -> bool:
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, wanted = term.partition("=")
        value: Any = obj
        for step in path.split("."):
            value = (value or {}).get(step)
        if str(value or "") != wanted.removeprefix("="):
            return False
    labels = obj["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, _, wanted = term.partition("=")
        if labels.get(name) != wanted.removeprefix("="):
            return False
    return True


def _status(code: int, reason: str, message: str) -> Raw:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
