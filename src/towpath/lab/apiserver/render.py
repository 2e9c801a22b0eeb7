"""How objects leave the server: as they are stored, under another version, as a Table, as metadata alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.convert import converted
from towpath.lab.apiserver.errors import ApiError, Obj
from towpath.lab.apiserver.printers.registry import printer_of
from towpath.lab.apiserver.printers.table import Printer
from towpath.lab.apiserver.resources import Resource
from towpath.lab.apiserver.store import Stored, encode

META = "meta.k8s.io/v1"


def raw_of(resource: Resource, stored: Stored) -> bytes:
    """The object's JSON under the resource's API version."""
    if stored.obj.get("apiVersion") == resource.api_version:
        return stored.raw
    raw = stored.views.get(resource.api_version)
    if raw is None:
        raw = stored.views[resource.api_version] = encode(converted(resource, stored.obj))
    return raw


def list_body(resource: Resource, meta: Obj, items: Sequence[bytes]) -> bytes:
    """A ``PodList`` of encoded items."""
    kind = resource.list_kind or f"{resource.kind}List"
    head = f'{{"kind":"{kind}","apiVersion":"{resource.api_version}","metadata":'.encode()
    return b'%s%s,"items":[%s]}' % (head, encode(meta), b",".join(items))


@dataclass(slots=True)
class Plain:
    """Objects as they are."""

    resource: Resource
    key: str = "json"

    def one(self, stored: Stored) -> bytes:
        """A single object."""
        return raw_of(self.resource, stored)

    frame = one

    def many(self, meta: Obj, items: Sequence[Stored]) -> bytes:
        """A list."""
        return list_body(self.resource, meta, [raw_of(self.resource, s) for s in items])


@dataclass(slots=True)
class Partial:
    """``PartialObjectMetadata``: what metadata-only clients ask for."""

    resource: Resource
    key: str = "partial"

    def one(self, stored: Stored) -> bytes:
        """A single object's metadata."""
        return encode(partial(stored.obj))

    frame = one

    def many(self, meta: Obj, items: Sequence[Stored]) -> bytes:
        """A list."""
        return encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": META,
                "metadata": meta,
                "items": [partial(s.obj) for s in items],
            }
        )


def partial(obj: Obj) -> Obj:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": obj["metadata"]}


@dataclass(slots=True)
class Tabular:
    """``meta.k8s.io/v1 Table``; ``include`` None, Metadata or Object. Columns go out once in a watch."""

    resource: Resource
    printer: Printer
    now: float
    include: str = "Metadata"
    version: str = META
    key: str = ""  # cells hold ages: a frame is never shared
    sent: list[bool] = field(default_factory=list)

    def _row(self, stored: Stored) -> Obj:
        row: Obj = {"cells": self.printer.cells(stored.obj, self.now)}
        if self.include == "Object":
            row["object"] = converted(self.resource, stored.obj)
        elif self.include != "None":
            row["object"] = partial(stored.obj)
        return row

    def _table(self, meta: Obj, items: Sequence[Stored], columns: bool = True) -> bytes:
        return encode(
            {
                "kind": "Table",
                "apiVersion": self.version,
                "metadata": meta,
                "columnDefinitions": self.printer.columns if columns else [],
                "rows": [self._row(s) for s in items],
            }
        )

    def one(self, stored: Stored) -> bytes:
        """A table of one row."""
        return self._table({"resourceVersion": str(stored.rv)}, [stored])

    def frame(self, stored: Stored) -> bytes:
        """A watch's table of one row; only the first has the columns."""
        first = not self.sent
        self.sent[:] = [True]
        return self._table({"resourceVersion": str(stored.rv)}, [stored], first)

    def many(self, meta: Obj, items: Sequence[Stored]) -> bytes:
        """A table of many rows."""
        return self._table(meta, items)


View = Plain | Partial | Tabular


def view_of(server: Server, call: Call) -> View:
    """The first representation of the Accept header that the server has. Raises ApiError 406."""
    if not call.accept or call.accept == "application/json":
        return Plain(call.resource)
    for part in call.accept.split(","):
        kind, *params = (p.strip() for p in part.split(";"))
        options = dict(p.split("=", 1) for p in params if "=" in p)
        if kind not in ("application/json", "*/*", "application/*"):
            continue
        wanted, group = options.get("as"), options.get("g", "meta.k8s.io")
        if wanted == "Table" and group == "meta.k8s.io" and options.get("v") in ("v1", "v1beta1"):
            include = call.query.get("includeObject") or "Metadata"
            printer = printer_of(server, call.resource)
            return Tabular(call.resource, printer, server.now(), include, f"{group}/{options['v']}")
        if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Partial(call.resource)
        if wanted is None:
            return Plain(call.resource)
    raise ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, application/yaml",
    )
