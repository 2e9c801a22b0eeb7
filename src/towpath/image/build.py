"""``make image``: the agent's image from locked inputs; the last line is its digest.

    python -m towpath.image.build [--architecture arm64] [--output build/image]
    python -m towpath.image.build --takeover     that of a migration's Jobs, with iptables and ipset, for root
    python -m towpath.image.build --refresh      move both locks to the latest patches, and say what changed

No Docker, no root, nothing from the image is run but its own Python's compiler of bytecode.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import towpath
from towpath import __version__
from towpath.image import apt, bytecode, compiler, debian, launcher, lock, pack, sbom, wheels
from towpath.image.errors import ImageError
from towpath.image.tree import Tree, file, merged

UID = 10531
ENTRYPOINT = ("/usr/bin/python3", "-m", "towpath")
ENV = ("PATH=/usr/sbin:/usr/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8")
Say = Callable[[str], None]


class Kind(msgspec.Struct, frozen=True):
    """One of our images. ``lockfile`` and ``addition`` (to the agent's recipe) are files in ``image/``."""

    name: str
    description: str
    user: str
    lockfile: str
    addition: str = ""

    @property
    def reference(self) -> str:
        """Its name in a registry, with the tag."""
        return f"docker.io/towpath/{self.name}:v{__version__}"

    def recipe(self, source: Path) -> lock.Recipe:
        """Raises ImageError."""
        folder = source / "image"
        return lock.read_recipe(folder / "recipe.toml", folder / self.addition if self.addition else None)


AGENT = Kind("towpath-agent", "Towpath's node agent and installer", f"{UID}:{UID}", "lock.json")
TAKEOVER = Kind(
    "towpath-takeover",
    "Towpath's takeover and handback of a node: root, with iptables and ipset",
    "0:0",
    "takeover.lock.json",
    "takeover.toml",
)
REFERENCE = AGENT.reference


class Built(msgspec.Struct, frozen=True):
    """An image: its OCI layout, the archive to import, the manifest's digest."""

    layout: Path
    archive: Path
    digest: str


def project() -> Path:
    """The source tree this program runs from. Raises ImageError: it is installed."""
    found = Path(towpath.__file__).parents[2]
    if not (found / "image/recipe.toml").exists():
        raise ImageError(f"{found} is no source tree of Towpath", "build from a clone of the repository")
    return found


def build(
    source: Path,
    architecture: str,
    output: Path,
    say: Say,
    *,
    kind: Kind = AGENT,
    reference: str = "",
    site: Tree | None = None,
    locked: lock.Lock | None = None,
) -> Built:
    """Build into ``output``, which is replaced. Raises ImageError.

    ``reference`` is the image's name, if not its kind's. ``site`` stands in for the wheels of ``source``:
    another version's site-packages. ``locked`` stands in for the kind's lock.
    """
    recipe = kind.recipe(source)
    locked = locked or lock.read_lock(source / "image" / kind.lockfile)
    for name in (architecture, lock.machine()):
        if name not in locked.packages:
            raise ImageError(f"image/{kind.lockfile} has no packages for {name}", "there are amd64 and arm64")
    with tempfile.TemporaryDirectory(prefix="towpath-image-") as folder:
        scratch = Path(folder)
        parts = {
            name: _debian(locked.packages[name], name, recipe, scratch, say)
            for name in {architecture, lock.machine()}
        }
        cc = ""
        if kind == AGENT or site is None:
            cc = _compiler(source, architecture, recipe, scratch, say)
        say("python packages")
        if site is None:
            left_out = recipe.python_without(architecture)
            site = wheels.install(source, architecture, cc, locked.epoch, left_out, scratch)
        base = debian.base(UID)
        if kind == AGENT:
            base |= launcher.compiled(source, cc, scratch)
        own = {**base, **{path: parts[architecture][path] for path in debian.GENERATED}}
        tree = merged((parts[architecture], site, base))
        say("bytecode")
        tree = merged((tree, bytecode.compiled(tree, parts[lock.machine()], lock.machine(), scratch)))
        packages = locked.packages[architecture]
        bill = sbom.bill(kind.name, __version__, tree, own, packages, locked.epoch, recipe.suite)
        tree[sbom.PATH] = file(bill)
        say("layout")
        settings = pack.Settings(architecture, kind.user, ENTRYPOINT, ENV, labels(source, kind))
        return _write(tree, settings, locked.epoch, output, reference or kind.reference, scratch)


def _compiler(source: Path, target: str, recipe: lock.Recipe, scratch: Path, say: Say) -> str:
    """What is called as ``cc`` is; all images have the agent's. Raises ImageError."""
    machine = lock.machine()
    name = compiler.pair(target, machine)
    packages = lock.read_lock(source / "image" / AGENT.lockfile).compilers.get(name)
    if packages is None:
        raise ImageError(f"image/{AGENT.lockfile} has no compiler {name}", "build on a machine of that kind")
    say(f"compiler {name}: {len(packages)} Debian packages")
    found = _fetched(packages, machine, recipe, scratch)
    return compiler.unpacked(found.values(), target, machine, scratch / "compiler")


def _debian(
    packages: tuple[lock.Package, ...], architecture: str, recipe: lock.Recipe, scratch: Path, say: Say
) -> Tree:
    say(f"{len(packages)} Debian packages for {architecture}")
    return debian.unpack(_fetched(packages, architecture, recipe, scratch), recipe)


def _fetched(
    packages: tuple[lock.Package, ...], architecture: str, recipe: lock.Recipe, scratch: Path
) -> dict[lock.Package, Path]:
    cache = cache_folder()
    source = apt.Apt(scratch / "apt", recipe.suite, architecture)
    if any(not (cache / f"{p.sha256}.deb").exists() for p in packages):
        source.update()
    return {p: apt.fetch(p, cache, source, scratch) for p in packages}


def _write(
    tree: Tree, settings: pack.Settings, epoch: int, output: Path, reference: str, scratch: Path
) -> Built:
    fresh = output.with_name(f".{output.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tag = reference.rpartition(":")[2]
    digest = pack.write_layout(tree, settings, epoch, fresh / "layout", tag, scratch)
    pack.write_archive(fresh / "layout", fresh / "image.tar", reference)
    (fresh / "sbom.cdx.json").write_bytes(tree[sbom.PATH].content)
    (fresh / "digest").write_text(digest + "\n")
    shutil.rmtree(output, ignore_errors=True)
    fresh.replace(output)
    return Built(output / "layout", output / "image.tar", digest)


def labels(source: Path, kind: Kind = AGENT) -> dict[str, str]:
    """OCI's annotations as labels; the revision is the last commit that touched what the image is made of."""
    prefix = "org.opencontainers.image"
    found = {
        f"{prefix}.title": kind.name,
        f"{prefix}.description": kind.description,
        f"{prefix}.version": __version__,
        f"{prefix}.licenses": "MIT",
        f"{prefix}.vendor": "Towpath",
        f"{prefix}.base.name": "scratch",
    }
    if kind == AGENT:
        found["dev.towpath.health"] = "GET /healthz and /readyz on 127.0.0.1:9109"
    if revision := _revision(source):
        found[f"{prefix}.revision"] = revision
    return found


def _revision(source: Path) -> str:
    inputs = [*wheels.SOURCES, "image"]
    log = ["git", "-C", str(source), "log", "-1", "--format=%H", "--", *inputs]
    dirty = ["git", "-C", str(source), "status", "--porcelain", "--", *inputs]
    try:
        commit, changed = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in (log, dirty)
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def cache_folder() -> Path:
    """Where packages are kept, by hash; ``XDG_CACHE_HOME`` moves it. Raises OSError."""
    home = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    folder = home / "towpath" / "debian"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def latest(source: Path, architectures: tuple[str, ...], say: Say, kind: Kind = AGENT) -> lock.Lock:
    """What the suite holds now, its security updates included. Raises ImageError."""
    recipe = kind.recipe(source)
    found, compilers = {}, {}
    with tempfile.TemporaryDirectory(prefix="towpath-image-") as folder:
        for architecture in architectures:
            say(f"{kind.name}: packages for {architecture}")
            source_of = apt.Apt(Path(folder), recipe.suite, architecture)
            source_of.update()
            found[architecture] = apt.solve(source_of, recipe.packages, recipe.left_out)
            for name, names in recipe.compiler.packages.items() if kind == AGENT else ():
                if name.endswith(f"-on-{architecture}"):
                    compilers[name] = apt.solve(source_of, names, recipe.compiler.left_out)
    return lock.Lock(int(time.time()), found, compilers)


def refresh(source: Path, say: Say) -> list[str]:
    """Lock the latest packages of the suite, its security updates included. Returns what changed."""
    changed = []
    for kind in (AGENT, TAKEOVER):
        path = source / "image" / kind.lockfile
        old = lock.read_lock(path) if path.exists() else None
        new = latest(source, tuple(lock.MULTIARCH), say, kind)
        if lines := lock.changes(old, new):  # otherwise the lock, and every time in the image, stays as it is
            lock.write_lock(new, path)
            changed += [f"{kind.name} {line}" for line in lines]
    apt.run(
        [wheels.find_uv(source), "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--universal",
         "--python-version", "3.11", "--no-header", "image/build-requirements.in",
         "-o", "image/build-requirements.txt"], cwd=source)  # fmt: skip
    return changed


def main() -> int:
    """0, or 1 after one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="towpath.image.build")
    parser.add_argument("--architecture", choices=sorted(lock.MULTIARCH), default=lock.machine())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--takeover", action="store_true")
    parser.add_argument("--refresh", action="store_true")
    given = parser.parse_args()

    def say(text: str) -> None:
        sys.stderr.write(f"image: {text}\n")

    try:
        source = project()
        if given.refresh:
            sys.stdout.write("".join(f"{line}\n" for line in refresh(source, say)) or "nothing changed\n")
            return 0
        kind, folder = (TAKEOVER, "takeover-image") if given.takeover else (AGENT, "image")
        built = build(source, given.architecture, given.output or source / "build" / folder, say, kind=kind)
        say(f"{built.archive}: {pack.compressed_size(built.layout) / 1e6:.1f} MB")
        sys.stdout.write(f"{built.digest}\n")
    except (ImageError, OSError) as failed:
        sys.stderr.write(f"image: {failed}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
