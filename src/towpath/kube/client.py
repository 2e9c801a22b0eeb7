"""A typed Kubernetes client: get, list (paged), watch, create, update, patch, delete; any resource."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from towpath.kube.codec import Event, Listing, decode, decode_event, decode_page, key_of
from towpath.kube.config import ClientConfig, Credentials
from towpath.kube.errors import ApiError, Gone, Malformed, Unauthorized, Unreachable, refused, words
from towpath.kube.http import HttpError, HttpPool, Response
from towpath.kube.kinds import Kind

T = TypeVar("T")

PAGE = 500
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
PatchType = Literal["merge", "strategic", "json", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]


class Client:
    """Requests to one API server in one identity. All methods raise ``errors.ApiError``.

    ``timeout`` seconds for a whole request (watches excepted); ``user_agent`` shows in audit logs.
    """

    def __init__(self, config: ClientConfig, *, timeout: float = 30.0, user_agent: str = "towpath") -> None:
        self.config = config
        self._credentials = Credentials(config)
        self._timeout = timeout
        self._user_agent = user_agent
        self._pool = HttpPool(config.server, config.tls(), config.server_name, config.proxy)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; running watches end with Unreachable."""
        await self._pool.close()

    async def get(
        self, kind: Kind[T], name: str, namespace: str = "", *, subresource: str = "", timeout: float = 0.0
    ) -> T:
        """One object."""
        path = kind.path(namespace, name, subresource)
        return decode(kind, "get", await self.request("GET", path, operation="get", timeout=timeout), path)

    async def list(
        self,
        kind: Kind[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = PAGE,
    ) -> Listing[T]:
        """All objects of a collection, consistent as of one resource version, ``page_size`` at a time.

        A continue token that expires between pages starts the list over, unpaged.
        """
        path = kind.path(namespace)
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": str(page_size)}
        found: Listing[T] = Listing([], "", [])
        while True:
            try:
                body = await self.request("GET", path, query=query, operation="list")
            except Gone:
                if not query.get("continue"):
                    raise
                query |= {"continue": "", "limit": ""}
                found = Listing([], "", [])
                continue
            page, query["continue"] = decode_page(kind, body, path)
            found = Listing(
                found.items + page.items, page.resource_version, found.undecodable + page.undecodable
            )
            if not query["continue"]:
                return found

    async def watch(
        self,
        kind: Kind[T],
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
        silence: float = 90.0,
    ) -> AsyncGenerator[Event[T], None]:
        """Changes after ``resource_version``, until the server ends the stream (about ``timeout_seconds``).

        The first event is OPENED. Bookmarks are asked for; ``silence`` seconds without a line, bookmarks
        included, raise Unreachable.
        Raises Gone when the version is too old, whether at once or in the stream.
        """
        path = kind.path(namespace)
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        response = await self._send("GET", path, query, b"", "", "watch")
        yield Event("OPENED", resource_version, ("", ""))
        async with contextlib.aclosing(_lines(response, silence, path)) as lines:
            async for line in lines:
                yield decode_event(kind, line, path)

    async def create(
        self, kind: Kind[T], obj: T | Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> T:
        """Create; its name (or generateName) is in the object. ``subresource``: e.g. "binding" of a pod."""
        space, name = key_of(obj)
        path = kind.path(namespace or space, name if subresource else "", subresource)
        body = await self.request("POST", path, body=msgspec.json.encode(obj), operation="create")
        return decode(kind, "create", body, path)

    async def update(self, kind: Kind[T], obj: T | Mapping[str, Any], *, subresource: str = "") -> T:
        """Replace; raises Conflict when ``metadata.resourceVersion`` in ``obj`` is no longer current."""
        path = kind.path(*key_of(obj), subresource)
        body = await self.request("PUT", path, body=msgspec.json.encode(obj), operation="update")
        return decode(kind, "update", body, path)

    async def patch(
        self,
        kind: Kind[T],
        name: str,
        body: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        """Change parts. ``force`` takes ownership of contested fields (apply only)."""
        path = kind.path(namespace, name, subresource)
        query = {"fieldManager": field_manager, "force": "true" if force else ""}
        if type == "apply" and not field_manager:
            query["fieldManager"] = self._user_agent
        answer = await self.request(
            "PATCH",
            path,
            query=query,
            body=msgspec.json.encode(body),
            content_type=PATCH_TYPES[type],
            operation="patch",
        )
        return decode(kind, "patch", answer, path)

    async def delete(
        self,
        kind: Kind[Any],
        name: str,
        namespace: str = "",
        *,
        propagation: Propagation | None = None,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete; raises Conflict when ``uid`` or ``resource_version`` is given and is not the object's."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if conditions := {k: v for k, v in conditions.items() if v}:
            options["preconditions"] = conditions
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = kind.path(namespace, name)
        await self.request("DELETE", path, body=msgspec.json.encode(options), operation="delete")

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
        operation: str = "",
        timeout: float = 0.0,
    ) -> bytes:
        """Any request, its whole answer as bytes. Empty query values are left out; ``timeout`` 0 is usual."""
        operation = operation or method.lower()
        seconds = timeout or self._timeout
        try:
            async with asyncio.timeout(seconds):
                response = await self._send(method, path, query or {}, body, content_type, operation)
                return await response.read()
        except TimeoutError as e:
            raise Unreachable(operation, words(path), f"no answer within {seconds:.0f} s") from e
        except HttpError as e:
            raise _transport_error(operation, path, e) from e

    async def stream(
        self, path: str, *, query: Mapping[str, str] | None = None, operation: str = "get"
    ) -> AsyncGenerator[bytes, None]:
        """A GET whose answer is consumed as it comes (logs that follow)."""
        response = await self._send("GET", path, query or {}, b"", "", operation)
        try:
            async with contextlib.aclosing(response.pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        except HttpError as e:
            raise _transport_error(operation, path, e) from e

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, content_type: str, operation: str
    ) -> Response:
        """Send, and turn every refusal into its error. A 401 is tried once more if the token file changed."""
        target = path
        if used := {k: v for k, v in query.items() if v}:
            target = f"{path}?{urlencode(used)}"
        headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        if content_type and body:
            headers["Content-Type"] = content_type
        while True:
            authorization = self._credentials.header()
            if authorization:
                headers["Authorization"] = authorization
            try:
                response = await self._pool.request(method, target, headers, body)
                if response.status < 300:
                    return response
                text = await response.read()
            except HttpError as e:
                raise _transport_error(operation, path, e) from e
            error = refused(
                operation, words(path), response.status, text, _seconds(response.headers.get("retry-after"))
            )
            if isinstance(error, Unauthorized) and self._credentials.header() != authorization:
                continue
            raise error


async def _lines(response: Response, silence: float, path: str) -> AsyncGenerator[bytes, None]:
    """Complete lines of a watch; the silence limit restarts with every piece received."""
    rest = b""
    async with contextlib.aclosing(response.pieces()) as pieces:
        while True:
            try:
                async with asyncio.timeout(silence):
                    piece = await anext(pieces, None)
            except TimeoutError as e:
                raise Unreachable("watch", words(path), f"nothing heard for {silence:.0f} s") from e
            except HttpError as e:
                raise _transport_error("watch", path, e) from e
            if piece is None:
                return
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line


def _transport_error(operation: str, path: str, error: HttpError) -> ApiError:
    cls = Malformed if error.protocol else Unreachable
    return cls(operation, words(path), str(error))


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdigit() else 0.0
