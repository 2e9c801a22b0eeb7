"""A tree as an OCI image: umoci makes the layout, and one archive of it is what runtimes import."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from towpath.image.apt import run
from towpath.image.errors import ImageError
from towpath.image.tree import Tree, write_layer


class Settings(msgspec.Struct, frozen=True):
    """How the image is run, and what its labels say."""

    architecture: str
    user: str
    entrypoint: Sequence[str]
    env: Sequence[str]
    labels: Mapping[str, str]


def write_layout(tree: Tree, settings: Settings, epoch: int, layout: Path, tag: str, scratch: Path) -> str:
    """Make the folder ``layout`` (which must not exist); returns the manifest's digest. Raises ImageError."""
    when = datetime.fromtimestamp(epoch, UTC).isoformat()
    layer = scratch / "layer.tar"
    write_layer(tree, layer, epoch)
    image = f"{layout}:{tag}"
    run(["umoci", "init", "--layout", str(layout)])
    run(["umoci", "new", "--image", image])
    run(["umoci", "raw", "add-layer", "--image", image, "--history.created", when,
         "--history.created_by", "make image", str(layer)])  # fmt: skip
    flags = [f"--config.label={key}={value}" for key, value in sorted(settings.labels.items())]
    flags += [f"--config.entrypoint={word}" for word in settings.entrypoint]
    flags += [f"--config.env={line}" for line in settings.env]
    run(["umoci", "config", "--image", image, "--no-history", "--created", when,
         "--architecture", settings.architecture, "--os", "linux", "--config.user", settings.user,
         "--config.workingdir", "/", *flags])  # fmt: skip
    run(["umoci", "gc", "--layout", str(layout)])
    layer.unlink()
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(manifest["digest"])


def write_archive(layout: Path, archive: Path, reference: str) -> None:
    """The layout as one tar, under the name ``reference`` when containerd imports it. Raises OSError.

    Without times and owners: a function of the layout and the name.
    """
    index = json.loads((layout / "index.json").read_text())
    (manifest,) = index["manifests"]
    manifest["annotations"] = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    partial = archive.with_name(f".{archive.name}.partial")
    blobs = sorted(path for path in layout.rglob("*") if path.is_file() and path.name != "index.json")
    with tarfile.open(partial, "w") as out:
        for path in blobs:
            member = tarfile.TarInfo(path.relative_to(layout).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as blob:
                out.addfile(member, blob)
        content = json.dumps(index, separators=(",", ":")).encode()
        member = tarfile.TarInfo("index.json")
        member.size = len(content)
        out.addfile(member, io.BytesIO(content))
    partial.replace(archive)


def compressed_size(layout: Path) -> int:
    """Bytes of all blobs. Raises ImageError: no layout."""
    if not (layout / "blobs").is_dir():
        raise ImageError(f"{layout} is no OCI layout")
    return sum(path.stat().st_size for path in (layout / "blobs").rglob("*") if path.is_file())
