"""OCI images as one archive, from a folder: an uncompressed layer, configuration, manifest and index.

The archive is a function of the folder's content and the arguments (no times, no owners but root), so that
its digest can stand for it. ``ctr images import`` takes it as it is.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"


def write_archive(
    root: Path, archive: Path, reference: str, *, entrypoint: Sequence[str], env: Sequence[str] = ()
) -> str:
    """Write the image of ``root``, ``reference``, to ``archive``; the manifest's digest. Raises OSError."""
    partial = archive.with_name(f".{archive.name}.partial")
    layer = archive.with_name(f".{archive.name}.layer")
    diff_id = _write_layer(root, layer)
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": list(env), "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", _digest(config), len(config)),
            "layers": [_descriptor("layer.v1.tar", diff_id, layer.stat().st_size)],
        }
    )
    listed = _descriptor("manifest.v1+json", _digest(manifest), len(manifest))
    listed["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    index = _json({"schemaVersion": 2, "manifests": [listed]})
    with tarfile.open(partial, "w") as out:
        _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", index)
        _add(out, _blob(_digest(manifest)), manifest)
        _add(out, _blob(_digest(config)), config)
        out.add(layer, _blob(diff_id), filter=_plain)
    layer.unlink()
    partial.replace(archive)
    return _digest(manifest)


def _write_layer(root: Path, layer: Path) -> str:
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)
    with layer.open("rb") as content:
        return "sha256:" + hashlib.file_digest(content, "sha256").hexdigest()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _descriptor(media: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"{_MEDIA}.{media}", "digest": digest, "size": size}


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    out.addfile(member, io.BytesIO(content))


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
