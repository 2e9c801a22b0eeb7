"""What an image holds, as values; the bytes of its files lie in one spool file without names."""

import posixpath
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from towpath.image.errors import ImageError

Kind = Literal["file", "folder", "link", "device", "fifo"]
_HOPS = 40  # as the kernel follows links


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. ``path`` without a leading slash; ``offset`` and ``size`` in bytes, in the spool.

    ``layer`` counts from 0; ``capability`` is the raw ``security.capability``, ``mtime`` in seconds.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    layer: int
    size: int = 0
    offset: int = 0
    sha256: str = ""
    target: str = ""
    capability: bytes = b""


class Spool:
    """Bytes of files, one behind the other, in an unnamed temporary file of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="towpath-audit-")  # noqa: SIM115
        self._limit = limit
        self._end = 0

    def begin(self) -> int:
        """Where the next file starts."""
        return self._end

    def add(self, chunk: bytes, what: str) -> None:
        """Append. Raises ImageError (TP8015) beyond the limit."""
        self._end += len(chunk)
        if self._end > self._limit:
            raise ImageError(
                f"{what}: the files are larger than {self._limit >> 20} MiB together",
                "a decompression bomb? --max-unpacked allows more",
                "TP8015",
            )
        self._file.write(chunk)

    def read(self, file: File, most: int = 1 << 30) -> bytes:
        """At most ``most`` bytes of a file's content."""
        self._file.seek(file.offset)
        content = self._file.read(min(file.size, most))
        self._file.seek(self._end)
        return content

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


class Image(msgspec.Struct):
    """An image as it is found. ``files`` what a container sees, by path; ``hidden`` what an upper layer
    deletes or replaces. ``config`` is the OCI image configuration, None for a bare root file system;
    ``names`` what it is called where it lies.
    """

    source: str
    spool: Spool
    files: dict[str, File] = {}
    hidden: list[File] = []
    whiteouts: list[str] = []
    layers: int = 0
    config: dict[str, Any] | None = None
    digest: str = ""
    compressed: int = 0
    names: list[str] = []
    attestations: list[str] = []
    signatures: list[str] = []

    def read(self, path: str, most: int = 1 << 26) -> bytes | None:
        """A file's content, links followed inside the image; None where there is none."""
        file = self.files.get(self.resolve(path))
        return self.spool.read(file, most) if file and file.kind == "file" else None

    def find(self, path: str) -> File | None:
        """The entry that ``path`` leads to."""
        return self.files.get(self.resolve(path))

    def resolve(self, path: str) -> str:
        """``path`` with all links followed, as chroot has it: nothing is above the root."""
        return resolve(self.files, path)

    def below(self, folder: str) -> Iterator[File]:
        """Entries under ``folder``."""
        prefix = f"{folder}/"
        return (file for path, file in self.files.items() if path.startswith(prefix))

    def programs(self) -> Iterator[File]:
        """Files that can be executed, or are linked to as programs."""
        for file in self.files.values():
            if (file.kind == "file" and file.mode & 0o111) or file.kind == "link":
                yield file


def resolve(files: dict[str, File], path: str, *, parents_only: bool = False) -> str:
    """Follow links of ``path``; with ``parents_only`` not that of its last part. Never above the root.

    Raises ImageError (TP8014): more than forty links, a loop.
    """
    return _follow(files, path, parents_only)[0]


def climbs(files: dict[str, File], path: str) -> bool:
    """Whether a link on the way to ``path`` leads above the root, where a careless unpacker would write."""
    return _follow(files, path, parents_only=True)[1]


def _follow(files: dict[str, File], path: str, parents_only: bool) -> tuple[str, bool]:
    rest, done, hops, above = [p for p in path.split("/") if p not in ("", ".")], "", 0, False
    while rest:
        part = rest.pop(0)
        if part == "..":
            above = above or not done
            done = posixpath.dirname(done)
            continue
        here = f"{done}/{part}" if done else part
        there = files.get(here)
        if there is None or there.kind != "link" or (parents_only and not rest):
            done = here
            continue
        hops += 1
        if hops > _HOPS:
            raise ImageError(f"{path}: its links form a loop", "rebuild the image", "TP8014")
        if there.target.startswith("/"):
            done = ""
        rest[:0] = [p for p in there.target.split("/") if p not in ("", ".")]
    return done, above
