"""The files of an image as a value: path -> entry, and the one tar layer made of it."""

import io
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from towpath.image.errors import ImageError

CAPABILITY = "SCHILY.xattr.security.capability"


class Entry(msgspec.Struct, frozen=True):
    """A file, folder or symbolic link. ``mode`` are the permission bits; owners are numeric.

    ``content`` of files, ``target`` of links; ``capability`` the raw ``security.capability`` attribute.
    """

    kind: Literal["file", "folder", "link"]
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    content: bytes = b""
    target: str = ""
    capability: bytes = b""


Tree = dict[str, Entry]  # paths relative to the root, as usr/bin/python3.11


def folder(mode: int = 0o755) -> Entry:
    """A folder of root's."""
    return Entry("folder", mode)


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry("link", 0o777, target=target)


def file(content: bytes | str, mode: int = 0o644) -> Entry:
    """A file of root's."""
    return Entry("file", mode, content=content.encode() if isinstance(content, str) else content)


def from_tar(content: bytes, what: str) -> Tree:
    """The entries of a tar file; hard links become files. Raises ImageError for devices and escapes."""
    tree: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            path = posixpath.normpath(member.name.lstrip("/"))
            if path.startswith("..") or "\0" in path:
                raise ImageError(f"{what}: {member.name!r} leaves the image")
            mode, owner = stat.S_IMODE(member.mode), (member.uid, member.gid)
            if member.isdir():
                tree[path] = Entry("folder", mode, *owner)
            elif member.issym():
                tree[path] = Entry("link", 0o777, *owner, target=member.linkname)
            elif member.isfile() or member.islnk():
                read = tar.extractfile(member)
                tree[path] = Entry("file", mode, *owner, content=read.read() if read else b"")
            else:
                raise ImageError(f"{what}: {member.name!r} is neither file, folder nor link")
    tree.pop(".", None)
    return tree


def from_folder(root: Path) -> Tree:
    """The entries of a folder of ours, all root's; executable files 0755, others 0644."""
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            tree[name] = link(str(path.readlink()))
        elif path.is_dir():
            tree[name] = folder()
        else:
            tree[name] = file(path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
    return tree


def with_parents(tree: Mapping[str, Entry]) -> Tree:
    """``tree`` with every folder that a path needs, sorted by path."""
    whole = dict(tree)
    for path in tree:
        while path := posixpath.dirname(path):
            whole.setdefault(path, folder())
    return dict(sorted(whole.items()))


def write_folder(tree: Mapping[str, Entry], root: Path) -> None:
    """Lay ``tree`` out below ``root``, without owners. Raises OSError."""
    for path, entry in with_parents(tree).items():
        place = root / path
        if entry.kind == "folder":
            place.mkdir(exist_ok=True)
        elif entry.kind == "link":
            place.symlink_to(entry.target)
        else:
            place.write_bytes(entry.content)
            place.chmod(entry.mode | 0o600)


def write_layer(tree: Mapping[str, Entry], path: Path, epoch: int) -> None:
    """Write an uncompressed tar layer: sorted, every time ``epoch`` (seconds), numeric owners."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, entry in with_parents(tree).items():
            member = tarfile.TarInfo(name)
            member.mode, member.uid, member.gid, member.mtime = entry.mode, entry.uid, entry.gid, epoch
            if entry.kind == "folder":
                member.type = tarfile.DIRTYPE
            elif entry.kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            if entry.capability:
                member.pax_headers = {CAPABILITY: entry.capability.decode("ascii")}
            member.size = len(entry.content)
            tar.addfile(member, io.BytesIO(entry.content))


def merged(parts: Iterable[Mapping[str, Entry]]) -> Tree:
    """One tree of several. Two entries of one path that differ, folders excepted, raise ImageError."""
    tree: Tree = {}
    for part in parts:
        for path, entry in part.items():
            there = tree.get(path)
            if there and there != entry and not there.kind == entry.kind == "folder":
                raise ImageError(f"{path} is in two parts of the image, and differs")
            tree[path] = entry
    return tree
