"""The file: a gzipped tar of one JSON document an object, and a manifest with a checksum for each.

``manifest.json`` comes first and is of schema 1::

    {"schema": 1, "towpath": "0.1.0", "taken": "2026-11-27T09:00:00Z", "server": "v1.32.2+rke2r1",
     "cluster": "<UID of the namespace kube-system>", "moved": ["NetworkPolicy/shop/front"],
     "left_out": ["hostendpoints: forbidden…"],
     "entries": [{"path": "policies/…/front.json", "sha256": "…", "section": "policies",
                  "group": "…", "version": "v1", "plural": "…", "namespaced": true}]}

The tar's own times are those of ``taken`` and its names are sorted, so that one state makes one archive.
"""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

Raw = dict[str, Any]

SCHEMA = 1
MANIFEST = "manifest.json"
LARGEST = 512 << 20  # unpacked, bytes; what claims to be larger is no archive of ours


class ArchiveError(Exception):
    """Not an archive, or a damaged one; the message says what is wrong with which part."""


class Entry(msgspec.Struct, frozen=True):
    """One object and where its kind lives in the API."""

    path: str
    sha256: str
    section: str
    group: str
    version: str
    plural: str
    namespaced: bool


class Manifest(msgspec.Struct, frozen=True):
    """``moved``: objects that changed while it was made; ``left_out``: kinds that may not be read."""

    schema: int
    towpath: str
    taken: str
    server: str
    cluster: str
    entries: tuple[Entry, ...]
    moved: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class Saved(msgspec.Struct, frozen=True):
    """An object with its entry."""

    entry: Entry
    object: Raw


class Archive(msgspec.Struct, frozen=True):
    """All of it."""

    manifest: Manifest
    objects: tuple[Saved, ...]


def entry(section: str, group: str, version: str, plural: str, raw: Raw, *, namespaced: bool) -> Saved:
    """Of a cleaned object."""
    meta = raw["metadata"]
    parts = (section, f"{plural}.{group}" if group else plural, meta.get("namespace", ""), meta["name"])
    path = "/".join(quote(part, safe="") for part in parts if part) + ".json"
    digest = hashlib.sha256(_document(raw)).hexdigest()
    return Saved(Entry(path, digest, section, group, version, plural, namespaced), raw)


def pack(archive: Archive) -> bytes:
    """As a file."""
    ordered = sorted(archive.objects, key=lambda one: one.entry.path)
    manifest = msgspec.structs.replace(archive.manifest, entries=tuple(one.entry for one in ordered))
    when = int(datetime.fromisoformat(manifest.taken).timestamp())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1), when)
        for one in ordered:
            _add(tar, one.entry.path, _document(one.object), when)
    return gzip.compress(out.getvalue(), mtime=when)


def unpack(data: bytes) -> Archive:
    """Read and check every checksum. Nothing is written anywhere. Raises ArchiveError."""
    documents = _documents(data)
    try:
        manifest = msgspec.json.decode(documents.pop(MANIFEST), type=Manifest)
    except KeyError as e:
        raise ArchiveError(f"there is no {MANIFEST} in it: not an archive of towpath backup") from e
    except msgspec.DecodeError as e:
        raise ArchiveError(f"{MANIFEST} cannot be read: {e}") from e
    if manifest.schema != SCHEMA:
        raise ArchiveError(f"it is of schema {manifest.schema}; this towpath reads schema {SCHEMA}")
    objects = []
    for one in manifest.entries:
        document = documents.pop(one.path, None)
        if document is None:
            raise ArchiveError(f"{one.path} is in the manifest but not in the archive")
        if hashlib.sha256(document).hexdigest() != one.sha256:
            raise ArchiveError(f"{one.path} does not have the checksum of the manifest")
        objects.append(Saved(one, _object(one.path, document)))
    if documents:
        raise ArchiveError(f"{min(documents)} is in the archive but not in the manifest")
    return Archive(manifest, tuple(objects))


def _document(raw: Raw) -> bytes:
    return json.dumps(raw, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _object(path: str, document: bytes) -> Raw:
    try:
        found = json.loads(document)
        if not (isinstance(found, dict) and isinstance(found["metadata"]["name"], str)):
            raise TypeError("not an object of Kubernetes")
    except (ValueError, KeyError, TypeError) as e:
        raise ArchiveError(f"{path} cannot be read: {e}") from e
    return found


def _add(tar: tarfile.TarFile, name: str, data: bytes, when: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), when, 0o600
    tar.addfile(info, io.BytesIO(data))


def _documents(data: bytes) -> dict[str, bytes]:
    """Contents by name, read into memory only: a path that leaves its folder leads nowhere."""
    found: dict[str, bytes] = {}
    try:
        with gzip.open(io.BytesIO(data)) as file:
            whole = file.read(LARGEST + 1)  # to the end, so that gzip's own checksum is looked at
        if len(whole) > LARGEST:
            raise ArchiveError(f"it unpacks to more than {LARGEST >> 20} MiB")
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ArchiveError(f"{member.name} is no plain file")
                if member.name in found:
                    raise ArchiveError(f"{member.name} is in it twice")
                found[member.name] = content.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as e:
        raise ArchiveError(f"it is truncated, or no archive: {e}") from e
    return found
