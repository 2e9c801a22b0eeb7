"""The images of a real cluster's pods, made from this machine's files and cached by their content.

``pause`` and ``probe`` are one static C program each. The agent's is Debian's Python with the libraries it
and libnftables need, Towpath and its dependencies; no shell, no package manager.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

import towpath
from towpath import __version__
from towpath.lab.real import oci
from towpath.lab.real.binaries import cache_folder
from towpath.lab.rundir import LabError

AGENT = f"docker.io/towpath/towpath-agent:v{__version__}"
PAUSE, PROBE = "docker.io/towpath/pause:v1", "docker.io/towpath/probe:v1"

_PYTHON = Path("/usr/bin/python3.11")
_STDLIB = Path("/usr/lib/python3.11")
_SITE = "usr/lib/python3/dist-packages"
_UNUSED = ("test", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data", "__pycache__")
_LIBRARIES = ("libnftables.so.1",)
_SOURCES = Path(__file__).parent / "images"
_PACKAGE = Path(towpath.__file__).parent


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
    """All images, from the cache where nothing changed. Raises LabError: no compiler, no Debian Python."""
    return (
        *(static_image(r, s, progress) for r, s in ((PAUSE, "pause"), (PROBE, "probe"))),
        agent_image(AGENT, progress),
    )


def static_image(reference: str, name: str, progress: Callable[[str], None]) -> Image:
    """``images/NAME.c`` as the one file of an image."""
    source = _SOURCES / f"{name}.c"

    def fill(root: Path) -> None:
        _run("cc", "-Os", "-static", "-s", "-o", str(root / name), str(source))

    return _cached(reference, [source.read_bytes()], fill, (f"/{name}",), progress)


def agent_image(reference: str, progress: Callable[[str], None], site: Path | None = None) -> Image:
    """The agent and the node installer; ``reference`` ends in the tag. ``site`` is the ``site-packages`` that
    Towpath and what it needs are taken from, else those this program runs with.
    """
    if not _PYTHON.exists():
        raise LabError(f"{_PYTHON} is missing", "apt install python3 libpython3-stdlib", "TP9026")
    package = site / "towpath" if site else _PACKAGE
    distributions = sorted(_runtime_distributions(site), key=lambda d: d.metadata["Name"])
    parts = [p.read_bytes() for p in sorted(package.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
    parts += [f"{d.metadata['Name']} {d.version}".encode() for d in distributions]
    parts += [_PYTHON.read_bytes(), Path(__file__).read_bytes()]

    def fill(root: Path) -> None:
        _fill_agent(root, package, distributions)

    env = ("PATH=/usr/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")
    return _cached(reference, parts, fill, ("/usr/bin/python3", "-m", "towpath"), progress, env)


def _cached(
    reference: str,
    parts: Iterable[bytes],
    fill: Callable[[Path], None],
    entrypoint: tuple[str, ...],
    progress: Callable[[str], None],
    env: tuple[str, ...] = (),
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
        fill(Path(scratch))
        found = oci.write_archive(Path(scratch), archive, reference, entrypoint=entrypoint, env=env)
    for stale in folder.glob(f"{reference.rpartition('/')[2].replace(':', '-')}-*"):
        if not stale.name.startswith(stem):
            stale.unlink(missing_ok=True)
    digest.write_text(found)
    return Image(reference, archive, found)


def _fill_agent(root: Path, package: Path, distributions: Iterable[importlib.metadata.Distribution]) -> None:
    for link, target in (("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
        (root / target).mkdir(parents=True)
        (root / link).symlink_to(target)
    shutil.copy2(_PYTHON, root / "usr/bin/python3")
    shutil.copytree(_STDLIB, root / "usr/lib/python3.11", symlinks=False, ignore=_not_needed)
    site = root / _SITE
    site.mkdir(parents=True)
    for distribution in distributions:
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                _copy(Path(str(distribution.locate_file(file))), site / file)
    for path in package.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            _copy(path, site / "towpath" / path.relative_to(package))
    binaries = [root / "usr/bin/python3", *root.rglob("*.so"), *map(_library, _LIBRARIES)]
    for library in sorted({library for binary in binaries for library in _needed(binary)}):
        _copy(
            Path(library).resolve(),
            root / "usr" / Path(library).relative_to("/").as_posix().removeprefix("usr/"),
        )
    for name in _LIBRARIES:
        _copy(_library(name).resolve(), root / _library(name).relative_to("/").as_posix())
    for folder in ("etc", "tmp", "run", "var", "proc", "sys", "dev"):
        (root / folder).mkdir(exist_ok=True)
    _run(str(_PYTHON), "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash",
         "-s", str(root), str(root / "usr/lib"))  # fmt: skip


def _not_needed(folder: str, names: list[str]) -> set[str]:
    return {
        name for name in names if name in _UNUSED or name.startswith("config-3") or name == "dist-packages"
    }


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _library(name: str) -> Path:
    for line in _run("/sbin/ldconfig", "-p").splitlines():
        if (line.split(" ")[0].strip() == name and "x86-64" in line) or f"{name} (libc6,AArch64)" in line:
            return Path("/usr" + line.split("=> ")[1].strip().removeprefix("/usr"))
    raise LabError(f"{name} is not installed", "apt install libnftables1", "TP9026")


def _needed(binary: Path) -> Iterator[str]:
    """Libraries outside the image that ``binary`` is linked with, as paths."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE):
        if path.startswith(("/lib", "/usr/lib")):
            yield path


def _runtime_distributions(site: Path | None) -> Iterator[importlib.metadata.Distribution]:
    """What Towpath requires without extras, transitively."""
    wanted, seen = ["towpath"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = importlib.metadata.distributions(name=name, path=[str(site)] if site else sys.path)
        distribution = next(iter(found), None)
        if distribution is None:
            continue  # for another Python or system
        for line in distribution.requires or ():
            requirement, _, marker = line.partition(";")
            if "extra ==" not in marker:
                wanted.append(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])
        if name != "towpath":
            yield distribution


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
