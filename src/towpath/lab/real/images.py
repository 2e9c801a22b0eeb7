"""The images of a real cluster's pods, made from this machine's files and cached by their content.

``pause`` and ``probe`` are one static C program each. The agent's is the one `make image` builds.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from towpath.image import build, wheels
from towpath.image.apt import GONE
from towpath.image.errors import ImageError
from towpath.image.lock import machine
from towpath.image.tree import from_folder
from towpath.lab.real import oci
from towpath.lab.real.binaries import cache_folder
from towpath.lab.rundir import LabError

AGENT = build.REFERENCE
PAUSE, PROBE = "docker.io/towpath/pause:v1", "docker.io/towpath/probe:v1"

_SOURCES = Path(__file__).parent / "images"


class Image(msgspec.Struct, frozen=True):
    """An image ready to be imported: its name with tag, the archive, the manifest's digest."""

    reference: str
    archive: Path
    digest: str

    @property
    def by_digest(self) -> str:
        """The name a registry would have made of it."""
        return f"{self.reference.rpartition(':')[0]}@{self.digest}"


def build_images(progress: Callable[[str], None]) -> tuple[Image, ...]:
    """All images, from the cache where nothing changed. Raises LabError: no compiler, no packages."""
    return (
        *(static_image(r, s, progress) for r, s in ((PAUSE, "pause"), (PROBE, "probe"))),
        agent_image(AGENT, progress),
    )


def static_image(reference: str, name: str, progress: Callable[[str], None]) -> Image:
    """``images/NAME.c`` as the one file of an image."""
    source = _SOURCES / f"{name}.c"

    def make(archive: Path, root: Path) -> str:
        _run("cc", "-Os", "-static", "-s", "-o", str(root / name), str(source))
        return oci.write_archive(root, archive, reference, entrypoint=(f"/{name}",))

    return _cached(reference, [source.read_bytes()], make, progress)


def agent_image(reference: str, progress: Callable[[str], None], site: Path | None = None) -> Image:
    """The agent and the node installer, as ``make image`` builds them; ``reference`` ends in the tag.

    Where newer patches have replaced a locked package, a test takes what Debian has; a release does not.
    ``site``: another version's ``site-packages``, instead of this source tree's wheel. Raises LabError.
    """
    try:
        source = build.project()
        parts = [p.read_bytes() for p in _inputs(source, site)]

        def make(archive: Path, scratch: Path) -> str:
            other = wheels.sifted(from_folder(site)) if site else None
            output = scratch / "image"
            take = partial(build.build, source, machine(), output, progress, reference=reference, site=other)
            try:
                built = take()
            except ImageError as failed:
                if failed.code != GONE:
                    raise
                progress(f"{failed}; this test goes on with the packages that Debian has now")
                built = take(locked=build.latest(source, (machine(),), progress))
            shutil.move(built.archive, archive)
            return built.digest

        return _cached(reference, parts, make, progress)
    except ImageError as failed:
        raise LabError(str(failed), code="TP9026") from failed


def _inputs(source: Path, site: Path | None) -> Iterator[Path]:
    """Files whose content the agent's image is made of."""
    for folder in (site or source / "src", source / "shim", source / "image", source / "src/towpath/image"):
        yield from (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    yield from (source / name for name in ("uv.lock", "pyproject.toml", "hatch_build.py"))


def _cached(
    reference: str,
    parts: Iterable[bytes],
    make: Callable[[Path, Path], str],
    progress: Callable[[str], None],
) -> Image:
    key = hashlib.sha256(reference.encode())
    for part in parts:
        key.update(hashlib.sha256(part).digest())
    folder = cache_folder().parent / "images"
    if not folder.exists():
        folder.mkdir()
    stem = f"{reference.rpartition('/')[2].replace(':', '-')}-{key.hexdigest()[:16]}"
    archive, digest = folder / f"{stem}.tar", folder / f"{stem}.digest"
    if archive.exists() and digest.exists():
        return Image(reference, archive, digest.read_text())
    progress(f"image {reference}")
    if not os.access(folder, os.W_OK):  # in a world, and the sources changed since it was entered
        folder = Path(tempfile.mkdtemp(prefix="towpath-images-"))
        archive, digest = folder / archive.name, folder / digest.name
    with tempfile.TemporaryDirectory(prefix="towpath-image-") as scratch:
        found = make(archive, Path(scratch))
    for stale in folder.glob(f"{reference.rpartition('/')[2].replace(':', '-')}-*"):
        if not stale.name.startswith(stem):
            stale.unlink(missing_ok=True)
    digest.write_text(found)
    return Image(reference, archive, found)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as missing:
        raise LabError(
            f"{command[0]}: {missing.strerror}", "apt install build-essential", "TP9026"
        ) from missing
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}", code="TP9026")
    return done.stdout


def main() -> None:
    """Build what is missing and list it."""
    for image in build_images(print):
        print(image.reference, image.digest, image.archive, image.archive.stat().st_size >> 20, "MiB")  # noqa: T201


if __name__ == "__main__":
    main()
