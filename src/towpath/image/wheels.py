"""Towpath's wheel and what it depends on, by the hashes of uv.lock, as files of an image."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from towpath.image.apt import run
from towpath.image.errors import ImageError
from towpath.image.tree import Entry, Tree, file, from_folder

SITE = "usr/local/lib/python3.11/dist-packages"
_PLATFORM = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}
SOURCES = ("src", "shim", "pyproject.toml", "uv.lock", "hatch_build.py", "README.md", "LICENSE")
_NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.pyc", "bin")
# Not needed to run, or about the machine that built: sources of extensions, tests, uv's own records.
_UNUSED_SUFFIXES = (".c", ".h", ".pyx", ".pxd", ".pyi", ".hash", ".cpp", ".rst")
_UNUSED_FOLDERS = ("tests", "test", "bin")
_UNUSED_PREFIXES = ("_testcapi.",)
_UNUSED_NAMES = ("REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json", ".lock")


def install(
    project: Path, architecture: str, compiler: str, epoch: int, left_out: Iterable[str], scratch: Path
) -> Tree:
    """The site-packages of a source tree, without the distributions left out; ``compiler`` makes the shim.

    Raises ImageError.
    """
    uv = find_uv(project)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    }
    environment |= {"SOURCE_DATE_EPOCH": str(epoch), "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    environment["CC"] = compiler
    source, out, site = scratch / "source", scratch / "wheel", scratch / "site"
    _copy_source(project, source)
    constraints = str(project / "image/build-requirements.txt")
    run([uv, "build", "--quiet", "--wheel", "--no-create-gitignore", "--build-constraints", constraints,
         "--require-hashes", "--python", "/usr/bin/python3.11", "--out-dir", str(out), str(source)],
        env=environment)  # fmt: skip
    (wheel,) = out.glob("*.whl")
    requirements = scratch / "requirements.txt"
    requirements.write_text(
        run([uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--project", str(source),
             "--no-header", *(f"--no-emit-package={name}" for name in left_out)], env=environment)
    )  # fmt: skip
    target = [uv, "pip", "install", "--quiet", "--no-deps", "--link-mode", "copy", "--target", str(site),
              "--python", "/usr/bin/python3.11", "--python-version", "3.11",
              "--python-platform", _PLATFORM[architecture]]  # fmt: skip
    run(
        [*target, "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)], scratch, environment
    )
    run([*target, str(wheel)], scratch, environment)
    return sifted(from_folder(site))


def sifted(site: Tree) -> Tree:
    """Site-packages without what an image has no use for; RECORD lists what is left."""
    kept = {path: entry for path, entry in site.items() if _needed(path) and entry.kind == "file"}
    return {f"{SITE}/{path}": _record(path, entry, kept) for path, entry in kept.items()}


def _needed(path: str) -> bool:
    *folders, name = path.split("/")
    return not (
        (name.endswith(_UNUSED_SUFFIXES) and ".dist-info" not in path)
        or name in _UNUSED_NAMES
        or name.startswith(_UNUSED_PREFIXES)
        or (name.endswith(".pth") and not folders)
        or "__pycache__" in folders  # whoever imported it has left them; the image has its own
        or (any(f in _UNUSED_FOLDERS for f in folders) and not path.startswith("towpath/"))
        or name == "_virtualenv.py"
    )


def _record(path: str, entry: Entry, kept: Tree) -> Entry:
    if not path.endswith(".dist-info/RECORD"):
        return entry
    lines = entry.content.decode().splitlines()
    return file("".join(f"{line}\n" for line in sorted(lines) if line.split(",", 1)[0].strip('"') in kept))


def find_uv(project: Path) -> str:
    """Raises ImageError."""
    own = project / ".venv-uv/bin/uv"
    found = shutil.which("uv") or (str(own) if own.exists() else None)
    if found is None:
        raise ImageError("uv is missing", "scripts/bootstrap image installs it")
    return found


def _copy_source(project: Path, source: Path) -> None:
    source.mkdir()
    for name in SOURCES:
        if (project / name).is_dir():
            shutil.copytree(project / name, source / name, ignore=_NOT_SOURCE)
        else:
            shutil.copy2(project / name, source / name)
