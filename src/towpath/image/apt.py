"""Debian's packages by way of the machine's own apt, with lists of our own: signed indices, no root.

apt checks the archive's signature and each package's hash; the lock's hash is checked on top.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from towpath.image.errors import ImageError
from towpath.image.lock import Package

GONE = "TP8003"  # a locked package is no longer on the mirror
MIRROR = "http://deb.debian.org"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Apt:
    """apt with its lists in ``state``, for one architecture of one suite."""

    def __init__(self, state: Path, suite: str, architecture: str) -> None:
        self._state = state / f"{suite}-{architecture}"
        self._architecture = architecture
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("TOWPATH_DEBIAN_MIRROR", MIRROR)
        lines = [
            f"deb [arch={architecture} signed-by={_KEYRING}] {mirror}/{archive} {name} main\n"
            for archive, name in (
                ("debian", suite),
                ("debian", f"{suite}-updates"),
                ("debian-security", f"{suite}-security"),
            )
        ]
        (self._state / "etc/sources.list").write_text("".join(lines))
        (self._state / "status").touch()

    def update(self) -> None:
        """Fetch the signed indices. Raises ImageError."""
        self._run("apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")

    def candidates(self, names: list[str]) -> dict[str, dict[str, str]]:
        """The newest record of each package: field -> value. Raises ImageError: no such package."""
        text = self._run("apt-cache", "show", "--no-all-versions", *names)
        found = {record["Package"]: record for record in records(text)}
        if missing := [n for n in names if n not in found]:
            raise ImageError(f"Debian has no package {', '.join(missing)}", "correct image/recipe.toml")
        return found

    def download(self, package: Package, folder: Path) -> None:
        """Put the package's file into ``folder``. Raises ImageError: it is no longer on the mirror."""
        try:
            self._run("apt-get", "download", "-qq", f"{package.name}={package.version}", cwd=folder)
        except ImageError as failed:
            raise ImageError(
                f"{package.name} {package.version} cannot be had: {failed}",
                "newer patches replaced it: make image-refresh, or set TOWPATH_DEBIAN_MIRROR to a snapshot",
                GONE,
            ) from failed

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::State": self._state,
            "Dir::State::Lists": self._state / "lists",
            "Dir::State::status": self._state / "status",
            "Dir::Cache": self._state / "cache",
            "Dir::Etc::SourceList": self._state / "etc/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false" if "TOWPATH_DEBIAN_MIRROR" in os.environ else "true",
        }
        flags = [text for key, value in options.items() for text in ("-o", f"{key}={value}")]
        return run([command[0], *flags, *command[1:]], cwd)


def run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a tool prints. Raises ImageError with the end of what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=600
        )
    except OSError as missing:
        raise ImageError(f"{command[0]}: {missing.strerror}", "scripts/bootstrap image installs it") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]} did not end within ten minutes") from None
    if done.returncode:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).split())[-600:]
        raise ImageError(f"{command[0]} failed: {said}")
    return done.stdout


def records(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file (deb822), with folded lines as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        record: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t"):
                record[key] += "\n" + line
            else:
                key, _, value = line.partition(":")
                record[key] = value.strip()
        if record:
            yield record


def solve(apt: Apt, packages: Iterable[str], left_out: Container[str]) -> tuple[Package, ...]:
    """These with what they depend on, less what is left out, by name. Raises ImageError."""
    found: dict[str, dict[str, str]] = {}
    wanted = list(packages)
    while wanted:
        batch = apt.candidates(sorted(set(wanted)))
        found |= batch
        needed = {name for record in batch.values() for name in dependencies(record)}
        wanted = [name for name in needed if name not in found and name not in left_out]
    return tuple(
        Package(
            name=name,
            version=record["Version"],
            sha256=record["SHA256"],
            size=int(record["Size"]),
            filename=record["Filename"],
        )
        for name, record in sorted(found.items())
    )


def dependencies(record: dict[str, str]) -> Iterator[str]:
    """Names of the packages that a record depends on; of alternatives the first."""
    for field in ("Pre-Depends", "Depends"):
        for clause in filter(None, record.get(field, "").split(",")):
            yield re.split(r"[\s(:|]", clause.strip(), maxsplit=1)[0]


def fetch(package: Package, cache: Path, apt: Apt, scratch: Path) -> Path:
    """The package's file, in ``cache`` by its hash. Raises ImageError: not to be had, or another content."""
    kept = cache / f"{package.sha256}.deb"
    if kept.exists() and _sha256(kept) == package.sha256:
        return kept
    folder = scratch / package.sha256
    folder.mkdir()
    apt.download(package, folder)
    (got,) = folder.glob("*.deb")
    if (found := _sha256(got)) != package.sha256:
        raise ImageError(
            f"{package.name} {package.version}: sha256 {found}, but the lock says {package.sha256}",
            "somebody changed the package, or the lock: look before make image-refresh",
            "TP8002",
        )
    partial = kept.with_name(f".{kept.name}.{os.getpid()}")
    partial.write_bytes(got.read_bytes())
    partial.replace(kept)
    return kept


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
