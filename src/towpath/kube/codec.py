"""Bytes of the API to typed objects. One bad object never spoils the others: it is named and set aside."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import msgspec

from towpath.api.meta import ObjectMeta
from towpath.kube.errors import Malformed, refused, words
from towpath.kube.kinds import Kind

T = TypeVar("T")
Key = tuple[str, str]  # namespace ("" for cluster-wide objects), name

_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """``metav1.ListMeta``; ``continue_`` non-empty while pages remain."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Undecodable(msgspec.Struct, frozen=True):
    """An object that does not have the shape its kind promises: named, skipped, never fatal to the rest."""

    key: Key
    problem: str


class Listing(msgspec.Struct, Generic[T], frozen=True):
    """A collection, or a page of it, as of ``resource_version``."""

    items: list[T]
    resource_version: str
    undecodable: list[Undecodable] = []


class Event(msgspec.Struct, Generic[T], frozen=True):
    """One line of a watch, or OPENED: the server has accepted it.

    ``object`` is None for OPENED, for bookmarks and for what could not be decoded.
    """

    type: Literal["OPENED", "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "UNDECODABLE"]
    resource_version: str
    key: Key
    object: T | None = None
    problem: str = ""


class _Page(msgspec.Struct, Generic[T], frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[T] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Change(msgspec.Struct, Generic[T], frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: T


class _Partial(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


_LINE = msgspec.json.Decoder(_Line)
_PARTIAL = msgspec.json.Decoder(_Partial)
_RAW_PAGE = msgspec.json.Decoder(_Page[msgspec.Raw])


@lru_cache(maxsize=256)
def _decoder(kind: Kind[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind.type)


@lru_cache(maxsize=256)
def _page_decoder(kind: Kind[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_Page[kind.type])  # type: ignore[name-defined]


@lru_cache(maxsize=256)
def _change_decoder(kind: Kind[Any]) -> msgspec.json.Decoder[Any] | None:
    """Of a change to an object in one go; None for a kind that keeps every field, which may lack metadata."""
    if "metadata" not in getattr(kind.type, "__struct_fields__", ()):
        return None
    return msgspec.json.Decoder(_Change[kind.type])  # type: ignore[name-defined]


def decode(kind: Kind[T], operation: str, body: bytes, path: str) -> T:
    """One object. Raises Malformed."""
    try:
        obj: T = _decoder(kind).decode(body)
    except _BAD as e:
        raise Malformed(operation, words(path), str(e)) from e
    return obj


def decode_page(kind: Kind[T], body: bytes, path: str) -> tuple[Listing[T], str]:
    """A page in one go, or, if one object spoils it, each by itself; and the token of the next page.

    Raises Malformed when it is no list at all.
    """
    try:
        page = _page_decoder(kind).decode(body)
        return Listing(page.items or [], page.metadata.resource_version), page.metadata.continue_
    except _BAD:
        pass
    try:
        raw_page = _RAW_PAGE.decode(body)
    except _BAD as e:
        raise Malformed("list", words(path), str(e)) from e
    items: list[T] = []
    bad: list[Undecodable] = []
    for raw in raw_page.items or []:
        try:
            items.append(_decoder(kind).decode(raw))
        except _BAD as e:
            bad.append(Undecodable(_raw_key(raw), str(e)))
    return Listing(items, raw_page.metadata.resource_version, bad), raw_page.metadata.continue_


def decode_event(kind: Kind[T], line: bytes, path: str) -> Event[T]:
    """One line of a watch. Raises Malformed, and the refusal that an ERROR event carries.

    In one go, if it is a change that nothing spoils; else piece by piece, as with a page.
    """
    if (decoder := _change_decoder(kind)) is not None:
        with suppress(*_BAD):
            change = decoder.decode(line)
            return Event(change.type, version_of(change.object), key_of(change.object), change.object)
    try:
        event = _LINE.decode(line)
        if event.type == "ERROR":
            raise refused("watch", words(path), 0, bytes(event.object))
        meta = _PARTIAL.decode(event.object).metadata
    except _BAD as e:
        raise Malformed("watch", words(path), str(e)) from e
    key = (meta.namespace, meta.name)
    match event.type:
        case "ADDED" | "MODIFIED" | "DELETED":
            try:
                return Event(event.type, meta.resource_version, key, _decoder(kind).decode(event.object))
            except _BAD as e:
                kind_of_event: Literal["DELETED", "UNDECODABLE"] = (
                    "DELETED" if event.type == "DELETED" else "UNDECODABLE"
                )
                return Event(kind_of_event, meta.resource_version, key, None, str(e))
        case "BOOKMARK":
            return Event("BOOKMARK", meta.resource_version, key)
        case unknown:
            raise Malformed("watch", words(path), f"unknown event type {unknown!r}")


def key_of(obj: Any) -> Key:
    """Namespace and name of a typed object or of a plain mapping."""
    meta = obj["metadata"] if isinstance(obj, Mapping) else obj.metadata
    if isinstance(meta, Mapping):
        return str(meta.get("namespace") or ""), str(meta.get("name") or "")
    return meta.namespace, meta.name


def version_of(obj: Any) -> str:
    """``metadata.resourceVersion`` of a typed object or of a plain mapping."""
    meta = obj["metadata"] if isinstance(obj, Mapping) else obj.metadata
    return str(meta.get("resourceVersion") or "") if isinstance(meta, Mapping) else str(meta.resource_version)


def _raw_key(raw: msgspec.Raw) -> Key:
    try:
        meta = _PARTIAL.decode(raw).metadata
    except _BAD:
        return "", "?"
    return meta.namespace, meta.name
