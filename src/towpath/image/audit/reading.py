"""Images from where they lie: an OCI layout (folder or tar), a docker-archive tar, a root file system."""

import contextlib
import gzip
import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec

from towpath.image.audit.contents import File, Image, Kind, Spool
from towpath.image.audit.layers import Hashed, Layering, safe_path
from towpath.image.errors import ImageError

MOST_UNPACKED = 8 << 30
_MOST_JSON = 16 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYERS: dict[str, str] = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
}
_ATTESTATION = "vnd.docker.reference.type"


class _Store(Protocol):
    """Where blobs and index are: names relative to the layout."""

    def open(self, name: str) -> IO[bytes]: ...
    def has(self, name: str) -> bool: ...
    def close(self) -> None: ...


class _FolderStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> IO[bytes]:
        try:
            return os.fdopen(os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except OSError as missing:
            raise ImageError(
                f"{self._root / name}: {missing.strerror}", "copy it again", "TP8012"
            ) from missing

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def close(self) -> None:
        pass


class _TarStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as stack:
            try:
                self._tar = stack.enter_context(tarfile.open(path))
                self._members = {safe_path(m.name, str(path)): m for m in self._tar}
            except (tarfile.TarError, EOFError, OSError) as damaged:
                # tarfile tells what each kind of compression said, a line each.
                reason, hint = str(damaged).partition(":\n")[0], "the archive is truncated or no tar"
                raise ImageError(f"{path}: {reason}", hint, "TP8010") from damaged
            stack.pop_all()  # it lives as long as the image is read

    def open(self, name: str) -> IO[bytes]:
        member = self._members.get(name)
        for _ in range(8):  # docker save has layers as links to one another
            if member is None or not member.issym():
                break
            member = self._members.get(os.path.normpath(os.path.join(os.path.dirname(name), member.linkname)))  # noqa: PTH118, PTH120
        content = self._tar.extractfile(member) if member and (member.isfile() or member.islnk()) else None
        if content is None:
            raise ImageError(f"{self._path} has no {name}", "copy the image again", "TP8012")
        return content

    def has(self, name: str) -> bool:
        return name in self._members

    def close(self) -> None:
        self._tar.close()


def read(path: Path, *, platform: str = "", most: int = MOST_UNPACKED) -> Image:
    """The image at ``path``. ``platform`` (``linux/arm64``) chooses among several; ``most`` bytes unpacked.

    Raises ImageError: no image, damaged, ambiguous, or built to do harm.
    """
    if not path.exists():
        raise ImageError(f"{path} is not there", "name an OCI layout, a docker-archive or a root file system")
    image = Image(str(path), Spool(most))
    try:
        if path.is_dir() and not (path / "oci-layout").exists():
            _check_not_around(path)
            _read_folder(path, image)
        else:
            with contextlib.closing(_FolderStore(path) if path.is_dir() else _TarStore(path)) as store:
                _read_store(store, image, platform)
    except BaseException:
        image.spool.close()
        raise
    return image


def _check_not_around(folder: Path) -> None:
    """``make image`` has the layout beside other files: as a root file system that would be all bad."""
    layouts = sorted(inner for inner in folder.iterdir() if (inner / "oci-layout").is_file())
    if layouts and not any((folder / name).exists() for name in ("bin", "etc", "usr")):
        raise ImageError(f"{folder} is no image: there is one in it", f"name {layouts[0]}", "TP8010")


def _read_store(store: _Store, image: Image, platform: str) -> None:
    if store.has("oci-layout"):
        _read_oci(store, image, platform)
    elif store.has("manifest.json"):
        _read_docker(store, image)
    else:
        raise ImageError(
            f"{image.source} has neither oci-layout nor manifest.json", "make it with skopeo copy", "TP8010"
        )


def _read_oci(store: _Store, image: Image, platform: str) -> None:
    index = _json(store, "index.json", image)
    manifest, image.digest = _choose(store, index, image, platform)
    config = _part(manifest, "config", image)
    image.config = _json(store, _blob(config, image), image, config["digest"])
    image.compressed = int(config.get("size", 0))
    diff_ids = list((image.config.get("rootfs") or {}).get("diff_ids") or ())
    layers = manifest.get("layers") or []
    if len(diff_ids) != len(layers):
        raise ImageError(f"{image.source}: {len(layers)} layers, but {len(diff_ids)} diff_ids", "", "TP8010")
    layering = Layering(image)
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        _layer(store, layer, diff_id, image, layering)


def _layer(store: _Store, layer: dict[str, Any], diff_id: str, image: Image, layering: Layering) -> None:
    media, digest = str(layer.get("mediaType")), str(layer.get("digest"))
    if media not in _LAYERS:
        raise ImageError(
            f"layer {digest} has media type {media!r}", "only tar layers can be judged", "TP8013"
        )
    name = _blob(layer, image)
    with store.open(name) as raw:
        outer = Hashed(raw)
        inner = Hashed(_decompressed(outer, _LAYERS[media], digest))
        layering.add(inner, digest)
        _same(_finish(inner, digest), diff_id, f"{digest}, uncompressed")
        _same(outer.finish(), digest, name)
    image.compressed += outer.count


def _finish(stream: Hashed, what: str) -> str:
    import zlib

    try:
        return stream.finish()
    except (EOFError, OSError, zlib.error) as damaged:
        raise ImageError(f"{what}: {damaged}", "the layer is truncated or damaged", "TP8010") from damaged


def _decompressed(stream: Hashed, how: str, what: str) -> Any:
    if how == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if how == "zstd":
        import zstandard

        try:
            return zstandard.ZstdDecompressor().stream_reader(
                cast("IO[bytes]", stream), read_across_frames=True
            )
        except zstandard.ZstdError as damaged:
            raise ImageError(f"{what}: {damaged}", "", "TP8010") from damaged
    return stream


def _choose(
    store: _Store, index: dict[str, Any], image: Image, platform: str, depth: int = 0
) -> tuple[Any, str]:
    """The manifest to judge, and its digest; notes attestations and signatures beside it."""
    listed = [d for d in index.get("manifests") or () if isinstance(d, dict)]
    images = []
    for each in listed:
        annotations = each.get("annotations") or {}
        if _ATTESTATION in annotations or "attestation" in str(each.get("artifactType", "")):
            image.attestations.append(str(each.get("digest")))
        elif str(annotations.get("org.opencontainers.image.ref.name", "")).endswith(".sig"):
            image.signatures.append(str(each.get("digest")))
        elif not platform or _platform(each) in ("", platform):
            images.append(each)
    if len(images) != 1:
        there = ", ".join(sorted({_platform(each) or str(each.get("digest")) for each in listed})) or "none"
        raise ImageError(
            f"{image.source} holds {len(images)} images{f' for {platform}' if platform else ''} ({there})",
            "choose one with --platform",
            "TP8016",
        )
    chosen = images[0]
    if name := (chosen.get("annotations") or {}).get("org.opencontainers.image.ref.name"):
        image.names.append(str(name))
    media, digest = str(chosen.get("mediaType")), str(chosen.get("digest"))
    if media not in (*_INDEXES, *_MANIFESTS):
        raise ImageError(f"{image.source}: {digest} has media type {media!r}", "no container image", "TP8013")
    found = _json(store, _blob(chosen, image), image, digest)
    if media in _INDEXES:
        if depth >= 3:
            raise ImageError(f"{image.source}: indexes in indexes without end", "", "TP8010")
        return _choose(store, found, image, platform, depth + 1)
    return found, digest


def _platform(descriptor: dict[str, Any]) -> str:
    platform = descriptor.get("platform") or {}
    return f"{platform.get('os', 'linux')}/{platform['architecture']}" if "architecture" in platform else ""


def _read_docker(store: _Store, image: Image) -> None:
    manifests = _json(store, "manifest.json", image, kind=list)
    if len(manifests) != 1 or not isinstance(manifests[0], dict):
        raise ImageError(f"{image.source} holds {len(manifests)} images", "save one image only", "TP8016")
    manifest = manifests[0]
    image.names += [str(tag) for tag in manifest.get("RepoTags") or ()]
    name = safe_path(str(manifest.get("Config")), image.source)
    image.config = _json(store, name, image)
    with store.open(name) as raw:
        image.digest = Hashed(raw).finish()
    named = _DIGEST.fullmatch("sha256:" + name.rpartition("/")[2].removesuffix(".json"))
    if named:
        _same(image.digest, named[0], name)
    diff_ids = (image.config.get("rootfs") or {}).get("diff_ids") or []
    layers = manifest.get("Layers") or []
    if len(diff_ids) != len(layers):
        raise ImageError(f"{image.source}: {len(layers)} layers, but {len(diff_ids)} diff_ids", "", "TP8010")
    layering = Layering(image)
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        blob = safe_path(str(layer), image.source)
        with store.open(blob) as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            outer = Hashed(raw)
            inner = Hashed(_decompressed(outer, "gzip" if zipped else "", blob))
            layering.add(inner, blob)
            _same(_finish(inner, blob), str(diff_id), blob)
            image.compressed += outer.count


def _read_folder(root: Path, image: Image) -> None:
    image.layers = 1
    for path, entry in _walk(root, ""):
        found = entry.stat(follow_symlinks=False)
        kind = _kind(found.st_mode)
        offset, digest, capability = image.spool.begin(), hashlib.sha256(), b""
        if kind == "file":
            size = _spool(entry.path, image, digest.update)
            try:
                capability = os.getxattr(entry.path, "security.capability", follow_symlinks=False)
            except OSError:
                capability = b""
        image.files[path] = File(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime=int(found.st_mtime),
            layer=0,
            size=size if kind == "file" else 0,
            offset=offset,
            sha256=digest.hexdigest() if kind == "file" else "",
            target=os.readlink(entry.path) if kind == "link" else "",  # noqa: PTH115
            capability=capability,
        )


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda e: e.name)
    except OSError as refused:
        raise ImageError(f"{folder}: {refused.strerror}", "read it as its owner or as root") from refused
    for entry in entries:
        path = prefix + entry.name
        yield path, entry
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{path}/")


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "fifo"


def _spool(path: str, image: Image, update: Callable[[bytes], None]) -> int:
    size = 0
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as content:
            while chunk := content.read(1 << 20):
                update(chunk)
                image.spool.add(chunk, path)
                size += len(chunk)
    except OSError as refused:
        raise ImageError(f"{path}: {refused.strerror}", "read it as its owner or as root") from refused
    return size


def _part(manifest: dict[str, Any], key: str, image: Image) -> dict[str, Any]:
    part = manifest.get(key)
    if not isinstance(part, dict) or "digest" not in part:
        raise ImageError(f"{image.source}: the manifest has no {key}", "", "TP8010")
    return part


def _blob(descriptor: dict[str, Any], image: Image) -> str:
    digest = str(descriptor.get("digest"))
    if not _DIGEST.fullmatch(digest):
        raise ImageError(f"{image.source}: {digest!r} is no sha256 digest", "", "TP8013")
    return "blobs/" + digest.replace(":", "/")


def _json(store: _Store, name: str, image: Image, digest: str = "", kind: type = dict) -> Any:
    with store.open(name) as raw:
        content = raw.read(_MOST_JSON + 1)
    if len(content) > _MOST_JSON:
        raise ImageError(f"{image.source}: {name} is larger than 16 MiB", "", "TP8015")
    if digest:
        _same("sha256:" + hashlib.sha256(content).hexdigest(), digest, name)
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as wrong:
        raise ImageError(f"{image.source}: {name}: {wrong}", "", "TP8010") from wrong


def _same(found: str, wanted: str, what: str) -> None:
    if found != wanted:
        raise ImageError(
            f"{what} is {found}, not {wanted}", "the image was damaged or changed on its way", "TP8011"
        )
