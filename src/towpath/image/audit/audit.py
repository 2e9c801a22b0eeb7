"""All checks of an image, and what came of them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from towpath.image.audit.config_checks import check_config
from towpath.image.audit.contents import Image
from towpath.image.audit.data_checks import check_data, listed_files
from towpath.image.audit.elf_checks import check_elf
from towpath.image.audit.file_checks import Budget, check_files
from towpath.image.audit.packages import Package, altered, inventory
from towpath.image.audit.rules import SEVERITIES, Found
from towpath.image.audit.secrets import check_secrets
from towpath.image.audit.vulnerabilities import check_vulnerabilities


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """By what an image is judged. ``feed`` of vulnerabilities and ``vex`` are files; None: not asked."""

    now: datetime
    max_age: timedelta = timedelta(days=90)
    budget: Budget = Budget()
    feed: Path | None = None
    vex: tuple[Path, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, worst first, and the figures of the image."""

    source: str
    digest: str
    user: str
    layers: int
    files: int
    unpacked: int
    compressed: int
    packages: tuple[Package, ...]
    findings: tuple[Found, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON and YAML."""
        return {
            "source": self.source,
            "digest": self.digest,
            "user": self.user,
            "layers": self.layers,
            "files": self.files,
            "unpackedBytes": self.unpacked,
            "compressedBytes": self.compressed,
            "packages": [msgspec.to_builtins(p) for p in self.packages],
            "findings": [f.as_dict() for f in self.findings],
        }


def audit(image: Image, terms: Terms) -> Report:
    """Every check. Raises ImageError: a feed or VEX file that cannot be read."""
    found, listed = inventory(image), listed_files(image)
    changed = {file.path for file in altered(image, found)}
    trusted = set(found.digests) - changed
    findings = [
        *check_config(image, terms.now, terms.max_age),
        *check_files(image, found, listed, terms.budget),
        *check_elf(image),
        *check_data(image, found),
        *check_secrets(image, trusted),
    ]
    if terms.feed:
        findings += check_vulnerabilities(image, found, terms.feed, terms.vex)
    return Report(
        source=image.source,
        digest=image.digest,
        user=str(((image.config or {}).get("config") or {}).get("User") or ""),
        layers=image.layers,
        files=len(image.files),
        unpacked=sum(f.size for f in image.files.values()),
        compressed=image.compressed,
        packages=tuple(sorted(set(found.packages))),
        findings=ordered(findings),
    )


def ordered(findings: list[Found]) -> tuple[Found, ...]:
    """Worst first, then by code and path; each once."""
    once = dict.fromkeys(findings)
    return tuple(sorted(once, key=lambda f: (SEVERITIES.index(f.weight), f.code, f.path)))
