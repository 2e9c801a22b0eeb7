"""Layers laid on one another, from tar streams; bounded, and written nowhere but to the spool."""

import hashlib
import io
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable
from typing import IO, Protocol

from towpath.image.audit.contents import File, Image, Kind, climbs, resolve
from towpath.image.errors import ImageError

_CHUNK = 1 << 20
_MOST_ENTRIES = 1_000_000
_MOST_LAYERS = 256
_KINDS: dict[bytes, Kind] = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}
_CAPABILITY = "SCHILY.xattr.security.capability"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Hashed(io.RawIOBase):
    """A stream that hashes what is read of it."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Bytes of the stream."""
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        self.count += len(chunk)
        return chunk

    def finish(self) -> str:
        """The digest of the whole, of what nobody read as well."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"


class Layering:
    """Adds layers to an image from the lowest up."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._entries = 0

    def add(self, tar: IO[bytes] | Hashed, name: str) -> None:
        """Lay an uncompressed tar on top. Raises ImageError: truncated, no tar, escapes, too large."""
        image = self._image
        if image.layers >= _MOST_LAYERS:
            raise ImageError(f"{image.source}: more than {_MOST_LAYERS} layers", "", "TP8015")
        number = image.layers
        image.layers += 1
        try:
            with tarfile.open(fileobj=tar, mode="r|") as members:
                for member in members:
                    self._entries += 1
                    if self._entries > _MOST_ENTRIES:
                        raise ImageError(f"{name}: more than {_MOST_ENTRIES} entries", "", "TP8015")
                    self._one(members, member, name, number)
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as damaged:
            raise ImageError(f"{name}: {damaged}", "the layer is truncated or damaged", "TP8010") from damaged

    def _one(self, members: tarfile.TarFile, member: tarfile.TarInfo, name: str, number: int) -> None:
        path = safe_path(member.name, name)
        if path == ".":
            return
        files = self._image.files
        if climbs(files, path):
            raise ImageError(
                f"{name}: {member.name!r} goes through a link that leads out of the image",
                "whoever built this image wants to write elsewhere",
                "TP8014",
            )
        path = resolve(files, path, parents_only=True)
        folder, _, last = path.rpartition("/")
        if last.startswith(_WHITEOUT):
            self._whiteout(folder, last, number)
            return
        if member.islnk():
            self._hard_link(member, path, name, number)
            return
        kind = _KINDS.get(member.type, "file")
        offset, digest = self._content(members, member, name) if kind == "file" else (0, "")
        capability = member.pax_headers.get(_CAPABILITY, "").encode("utf-8", "surrogateescape")
        self._put(
            File(
                path=path,
                kind=kind,
                mode=stat.S_IMODE(member.mode),
                uid=member.uid,
                gid=member.gid,
                mtime=int(member.mtime),
                layer=number,
                size=member.size if kind == "file" else 0,
                offset=offset,
                sha256=digest,
                target=member.linkname if kind == "link" else "",
                capability=capability,
            )
        )

    def _content(self, members: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> tuple[int, str]:
        offset, found = self._image.spool.begin(), hashlib.sha256()
        content = members.extractfile(member)
        left = member.size
        while content and left and (chunk := content.read(min(_CHUNK, left))):
            found.update(chunk)
            self._image.spool.add(chunk, name)
            left -= len(chunk)
        if left:
            raise ImageError(f"{name}: {member.name!r} is cut off", "the layer is truncated", "TP8010")
        return offset, found.hexdigest()

    def _hard_link(self, member: tarfile.TarInfo, path: str, name: str, number: int) -> None:
        target = resolve(self._image.files, safe_path(member.linkname, name), parents_only=True)
        there = self._image.files.get(target)
        if there is None:
            raise ImageError(f"{name}: {path} is a hard link to {target}, which is not there", "", "TP8010")
        self._put(_at(there, path, number))

    def _put(self, file: File) -> None:
        there = self._image.files.get(file.path)
        if there and there.layer != file.layer and there.kind != "folder":
            self._image.hidden.append(there)
        elif there and there.kind == "folder" != file.kind:
            self._remove(lambda f: f.path.startswith(f"{file.path}/"))
        self._image.files[file.path] = file

    def _whiteout(self, folder: str, last: str, number: int) -> None:
        prefix = f"{folder}/" if folder else ""
        if last == _OPAQUE:
            self._image.whiteouts.append(f"{folder}/*")
            self._remove(lambda f: f.path.startswith(prefix) and f.layer < number)
        else:
            path = prefix + last.removeprefix(_WHITEOUT)
            self._image.whiteouts.append(path)
            self._remove(lambda f: f.layer < number and (f.path == path or f.path.startswith(f"{path}/")))

    def _remove(self, which: Callable[[File], bool]) -> None:
        for file in [f for f in self._image.files.values() if which(f)]:
            del self._image.files[file.path]
            if file.kind != "folder":
                self._image.hidden.append(file)


def _at(file: File, path: str, layer: int) -> File:
    import msgspec

    return msgspec.structs.replace(file, path=path, layer=layer)


def safe_path(name: str, what: str) -> str:
    """``name`` as a path inside the image. Raises ImageError (TP8014): it names something outside."""
    path = posixpath.normpath(name.lstrip("/"))
    if ".." in name.split("/") or "\0" in name:
        raise ImageError(
            f"{what}: {name!r} leaves the image",
            "whoever built this image wants to write elsewhere",
            "TP8014",
        )
    return path
