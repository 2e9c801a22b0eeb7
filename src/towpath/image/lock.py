"""What an image is made of: a recipe (``image/recipe.toml`` and additions to it), its locked inputs."""

import fnmatch
import platform
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from towpath.image.errors import ImageError

T = TypeVar("T")

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # platform.machine() -> Debian's and OCI's name
MULTIARCH = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def machine() -> str:
    """This machine's architecture, in Debian's words."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


class Addition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What another image has beyond a recipe; the fields are the recipe's."""

    packages: tuple[str, ...]
    keep: tuple[str, ...] = ()


class Compiler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Packages of C compilers, by target and machine (``compiler.pair``).

    ``left_out``: what these depend on and need not, and why.
    """

    packages: dict[str, tuple[str, ...]]
    left_out: dict[str, str]


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``packages`` and what they depend on, without ``left_out`` (name -> why it is not needed).

    Of their files, what matches a pattern of ``drop`` and none of ``keep`` is left out. ``python_left_out``:
    distributions that ours name but never import; ``python_left_out_on`` further ones by architecture.
    """

    suite: str
    packages: tuple[str, ...]
    left_out: dict[str, str]
    python_left_out: dict[str, str]
    drop: tuple[str, ...]
    compiler: Compiler
    keep: tuple[str, ...] = ()
    python_left_out_on: dict[str, dict[str, str]] = {}

    def python_without(self, architecture: str) -> list[str]:
        """The Python distributions that do not come into an image."""
        return [*self.python_left_out, *self.python_left_out_on.get(architecture, ())]

    def wanted(self, path: str) -> bool:
        """Whether a package's file comes into the image."""
        return any(fnmatch.fnmatchcase(path, p) for p in self.keep) or not any(
            fnmatch.fnmatchcase(path, p) for p in self.drop
        )

    def extended(self, addition: Addition) -> "Recipe":
        """With all that the addition names."""
        packages, keep = self.packages + addition.packages, self.keep + addition.keep
        return msgspec.structs.replace(self, packages=packages, keep=keep)


class Package(msgspec.Struct, frozen=True):
    """A Debian package of one architecture, by the SHA-256 of its file."""

    name: str
    version: str
    sha256: str
    size: int
    filename: str


class Lock(msgspec.Struct, frozen=True):
    """Inputs by hash. ``epoch``: when they were locked (seconds), every time inside the image.

    ``compilers``: what ``image.compiler`` unpacks, by ``compiler.pair``.
    """

    epoch: int
    packages: dict[str, tuple[Package, ...]]
    compilers: dict[str, tuple[Package, ...]] = {}


def read_recipe(path: Path, addition: Path | None = None) -> Recipe:
    """Raises ImageError: missing, no TOML, unknown or missing keys."""
    recipe = _read(path, Recipe)
    return recipe.extended(_read(addition, Addition)) if addition else recipe


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), kind)
    except (OSError, ValueError, msgspec.ValidationError) as wrong:
        raise ImageError(f"{path}: {wrong}") from wrong


def read_lock(path: Path) -> Lock:
    """Raises ImageError: missing, no JSON, not a lock."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lock)
    except (OSError, msgspec.DecodeError) as wrong:
        raise ImageError(f"{path}: {wrong}", "make image-refresh writes it") from wrong


def write_lock(lock: Lock, path: Path) -> None:
    """Replace ``path`` in one step. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n")
    partial.replace(path)


def changes(old: Lock | None, new: Lock) -> list[str]:
    """One line for each package that came, went or changed its version."""
    lines: list[str] = []
    for name, packages in new.packages.items():
        lines += _changes(name, old.packages.get(name, ()) if old else (), packages)
    for name, packages in new.compilers.items():
        lines += _changes(f"compiler {name}", old.compilers.get(name, ()) if old else (), packages)
    return lines


def _changes(of: str, old: tuple[Package, ...], new: tuple[Package, ...]) -> Iterator[str]:
    before = {p.name: p for p in old}
    for package in new:
        known = before.pop(package.name, None)
        if known is None:
            yield f"{of} {package.name} {package.version} is new"
        elif known.sha256 != package.sha256:
            yield f"{of} {package.name} {known.version} -> {package.version}"
    yield from (f"{of} {name} {known.version} is gone" for name, known in before.items())
