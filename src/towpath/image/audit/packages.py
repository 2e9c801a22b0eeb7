"""Which packages an image has, and which of its files are theirs: dpkg, apk, Python, the build's list."""

import base64
import binascii
import csv
import hashlib
import posixpath
from collections.abc import Iterator
from email.parser import HeaderParser

import msgspec

from towpath.image.apt import records
from towpath.image.audit.contents import File, Image

_STATUS, _STATUS_FOLDER, _INFO = "var/lib/dpkg/status", "var/lib/dpkg/status.d", "var/lib/dpkg/info"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = (
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages.db",
    "var/lib/rpm/Packages",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
)
# What a database consists of is nobody's, and neither is what a kernel or runtime lays over it.
_OWN_FOLDERS = ("var/lib/dpkg/", "lib/apk/", "usr/lib/apk/", "var/lib/rpm/", "usr/lib/sysimage/rpm/")


class Package(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """An installed package. ``source`` is the source package with its version, for vulnerabilities."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    source_version: str = ""


class Inventory(msgspec.Struct):
    """Packages, who owns which path, and what the databases say files are (``algorithm:digest``)."""

    packages: list[Package] = []
    owners: dict[str, str] = {}
    digests: dict[str, str] = {}
    databases: list[str] = []
    unreadable: list[str] = []


def inventory(image: Image) -> Inventory:
    """Read every package database there is; what cannot be read is named, not guessed."""
    found = Inventory()
    for database in (_dpkg, _dpkg_folder, _apk, _python):
        database(image, found)
    for path in _RPM:
        if image.find(path):
            found.unreadable.append(path)
    return found


def unowned(image: Image, found: Inventory, listed: dict[str, str]) -> Iterator[File]:
    """Files and links of no package that are not ``listed`` either (path -> SHA-256, the build's own)."""
    for path, file in image.files.items():
        if file.kind == "folder" or path in found.owners or path.startswith(_OWN_FOLDERS):
            continue
        if path in listed and listed[path] in ("", file.sha256):
            continue
        if _source_of(path) not in found.owners:
            yield file


def altered(image: Image, found: Inventory) -> Iterator[File]:
    """Files that differ from what their package's database says."""
    for path, digest in found.digests.items():
        file = image.files.get(path)
        if file is None or file.kind != "file":
            continue
        algorithm, _, wanted = digest.partition(":")
        if algorithm == "sha256":
            same = file.sha256 == wanted
        else:
            same = hashlib.new(algorithm, image.spool.read(file), usedforsecurity=False).hexdigest() == wanted
        if not same:
            yield file


def _source_of(path: str) -> str:
    """The module a file of bytecode was made from (PEP 3147); otherwise the path itself."""
    folder, _, name = path.rpartition("/")
    if folder.endswith("/__pycache__") and name.endswith(".pyc"):
        return f"{folder.removesuffix('/__pycache__')}/{name.split('.', 1)[0]}.py"
    return path


def _dpkg(image: Image, found: Inventory) -> None:
    content = image.read(_STATUS)
    if content is None or not content.strip():
        return
    found.databases.append(_STATUS)
    for record in records(content.decode(errors="replace")):
        if "installed" in record.get("Status", "installed").split():
            found.packages.append(_debian(record))
    for file in image.below(_INFO):
        owner = posixpath.basename(file.path).rpartition(".")[0].partition(":")[0]
        if file.path.endswith(".list"):
            for line in image.spool.read(file).decode(errors="replace").splitlines():
                _own(image, found, line.lstrip("/"), owner)
        elif file.path.endswith(".md5sums"):
            _sums(image, found, image.spool.read(file), owner)


def _dpkg_folder(image: Image, found: Inventory) -> None:
    for file in image.below(_STATUS_FOLDER):
        if file.kind != "file":
            continue
        content = image.spool.read(file)
        if file.path.endswith(".md5sums"):
            _sums(image, found, content, posixpath.basename(file.path).removesuffix(".md5sums"))
        else:
            found.packages += [
                _debian(r) for r in records(content.decode(errors="replace")) if "Package" in r
            ]
            if _STATUS_FOLDER not in found.databases:
                found.databases.append(_STATUS_FOLDER)


def _sums(image: Image, found: Inventory, content: bytes, owner: str) -> None:
    for line in content.decode(errors="replace").splitlines():
        digest, _, path = line.partition("  ")
        if real := _own(image, found, path.lstrip("/"), owner):
            found.digests[real] = f"md5:{digest}"


def _own(image: Image, found: Inventory, path: str, owner: str) -> str:
    """Note the owner of ``path``, where links of folders (merged /usr) lead to."""
    if not path or path == ".":
        return ""
    folder, _, name = path.rpartition("/")
    real = f"{image.resolve(folder)}/{name}" if folder else name
    found.owners[real] = owner
    return real


def _debian(record: dict[str, str]) -> Package:
    name, version = record.get("Package", "?"), record.get("Version", "?")
    source, _, other = record.get("Source", name).partition(" ")
    return Package(
        kind="deb",
        name=name,
        version=version,
        architecture=record.get("Architecture", ""),
        source=source,
        source_version=other.strip("()") or version,
    )


def _apk(image: Image, found: Inventory) -> None:
    for path in _APK:
        content = image.read(path)
        if content is None or path in found.databases:
            continue
        found.databases.append(path)
        for paragraph in content.decode(errors="replace").split("\n\n"):
            _apk_package(image, found, paragraph)
        return


def _apk_package(image: Image, found: Inventory, paragraph: str) -> None:
    fields: dict[str, str] = {}
    folder = last = ""
    for line in paragraph.splitlines():
        key, _, value = line.partition(":")
        if key == "F":
            folder = value
        elif key == "R":
            last = _own(image, found, f"{folder}/{value}" if folder else value, fields.get("P", "?"))
        elif key == "Z" and last and value.startswith("Q1"):
            try:
                found.digests[last] = f"sha1:{base64.b64decode(value[2:]).hex()}"
            except binascii.Error:
                continue
        else:
            fields.setdefault(key, value)
    if "P" in fields:
        found.packages.append(
            Package(
                kind="apk",
                name=fields["P"],
                version=fields.get("V", "?"),
                architecture=fields.get("A", ""),
                source=fields.get("o", fields["P"]),
                source_version=fields.get("V", "?"),
            )
        )


def _python(image: Image, found: Inventory) -> None:
    for file in list(image.files.values()):
        folder, _, name = file.path.rpartition("/")
        if file.kind != "file" or not folder.endswith((".dist-info", ".egg-info")):
            continue
        if name in ("METADATA", "PKG-INFO"):
            fields = HeaderParser().parsestr(image.spool.read(file).decode(errors="replace"))
            found.packages.append(
                Package(kind="pypi", name=str(fields["Name"]), version=str(fields["Version"]))
            )
        elif name == "RECORD":
            _record(image, found, file, posixpath.dirname(folder))


def _record(image: Image, found: Inventory, file: File, site: str) -> None:
    owner = posixpath.basename(posixpath.dirname(file.path)).partition("-")[0]
    lines = image.spool.read(file).decode(errors="replace").splitlines()
    for row in csv.reader(lines):
        if not row or ".." in row[0].split("/"):
            continue
        path = f"{site}/{row[0]}"
        found.owners[path] = owner
        if len(row) > 1 and row[1].startswith("sha256="):
            digest = row[1].removeprefix("sha256=")
            try:
                raw = base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4))
            except (binascii.Error, ValueError):
                continue
            found.digests[path] = f"sha256:{raw.hex()}"
