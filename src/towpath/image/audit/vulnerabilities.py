"""Known vulnerabilities of an image's packages, from a feed that lies in a file; VEX says which do not count.

Feeds: Debian's security tracker (its ``json`` export), OSV (one document, a list, JSON lines, or a zip of
documents). VEX: OpenVEX or CycloneDX.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from towpath.image.audit.contents import Image
from towpath.image.audit.packages import Inventory, Package
from towpath.image.audit.rules import Found, Severity
from towpath.image.errors import ImageError

_MOST = 1 << 30
_URGENCY: dict[str, Severity] = {
    "high": "high",
    "medium": "medium",
    "low": "low",
    "unimportant": "info",
    "end-of-life": "low",
    "not yet assigned": "medium",
}
_SEVERITY: dict[str, Severity] = {
    "CRITICAL": "critical",
    "HIGH": "high",
    "MODERATE": "medium",
    "MEDIUM": "medium",
    "LOW": "low",
}


class Flaw(msgspec.Struct, frozen=True):
    """A vulnerability of one version of one package; ``fixed`` in which version, empty if in none."""

    id: str
    package: Package
    fixed: str
    severity: Severity


def check_vulnerabilities(
    image: Image, found: Inventory, feed: Path, vex: tuple[Path, ...]
) -> Iterator[Found]:
    """Raises ImageError: a feed or VEX document that cannot be read."""
    silenced = {(identifier, name) for path in vex for identifier, name in _not_affected(path)}
    for flaw in sorted(set(_flaws(feed, found, _codename(image))), key=lambda f: (f.package, f.id)):
        if (flaw.id, "") in silenced or (flaw.id, flaw.package.name) in silenced:
            continue
        where = f"{flaw.package.name} {flaw.package.version}"
        if flaw.fixed:
            yield Found(
                code="TP8181", path=where, message=f"{flaw.id}, fixed in {flaw.fixed}", severity=flaw.severity
            )
        else:
            weight: Severity = "low" if flaw.severity in ("critical", "high", "medium") else flaw.severity
            yield Found(code="TP8182", path=where, message=f"{flaw.id}, no fix yet", severity=weight)


def _codename(image: Image) -> str:
    for line in (image.read("etc/os-release") or b"").decode(errors="replace").splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip("\"'")
    return ""


def _flaws(feed: Path, found: Inventory, codename: str) -> Iterator[Flaw]:
    documents = list(_documents(feed))
    if len(documents) == 1 and _is_tracker(documents[0]):
        yield from _tracker(documents[0], found, codename)
        return
    recognised = False
    for document in documents:
        if isinstance(document, dict) and "id" in document and "affected" in document:
            recognised = True
            yield from _osv(document, found)
    if not recognised:
        raise ImageError(
            f"{feed} is neither Debian's security tracker nor OSV", "see towpath image audit --help"
        )


def _documents(path: Path) -> Iterator[Any]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(i.file_size for i in archive.infolist()) > _MOST:
                    raise ImageError(f"{path}: larger than 1 GiB unpacked", "", "TP8015")
                for name in archive.namelist():
                    if name.endswith(".json"):
                        yield json.loads(archive.read(name))
            return
        text = path.read_text()
        try:
            document = json.loads(text)
        except ValueError:
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
            return
    except (OSError, ValueError, zipfile.BadZipFile) as wrong:
        raise ImageError(f"{path}: {wrong}", "give a feed as its publisher has it") from wrong
    yield from document if isinstance(document, list) else [document]


def _is_tracker(document: Any) -> bool:
    if not isinstance(document, dict) or "affected" in document or not document:
        return False
    first = next(iter(document.values()))
    return isinstance(first, dict) and all(isinstance(v, dict) and "releases" in v for v in first.values())


def _tracker(document: dict[str, Any], found: Inventory, codename: str) -> Iterator[Flaw]:
    for package in found.packages:
        if package.kind != "deb":
            continue
        for identifier, entry in (document.get(package.source) or {}).items():
            release = (entry.get("releases") or {}).get(codename)
            if not release or release.get("status") == "undetermined":
                continue
            fixed = str(release.get("fixed_version") or "")
            if fixed == "0":  # never affected
                continue
            if release.get("status") == "resolved" and fixed and compare(package.source_version, fixed) >= 0:
                continue
            severity = _URGENCY.get(str(release.get("urgency", "")).rstrip("*"), "medium")
            yield Flaw(identifier, package, fixed, severity)


def _osv(document: dict[str, Any], found: Inventory) -> Iterator[Flaw]:
    if document.get("withdrawn"):
        return
    specific = document.get("database_specific") or {}
    severity = _SEVERITY.get(str(specific.get("severity", "")).upper(), "medium")
    names = [document["id"], *(document.get("aliases") or ())]
    identifier = next((n for n in names if n.startswith("CVE-")), names[0])
    for affected in document.get("affected") or ():
        about = affected.get("package") or {}
        ecosystem = str(about.get("ecosystem", "")).partition(":")[0]
        kind = {"Debian": "deb", "PyPI": "pypi", "Alpine": "apk"}.get(ecosystem)
        for package in found.packages:
            name = package.source if kind in ("deb", "apk") else package.name
            if package.kind != kind or _plain(name) != _plain(str(about.get("name"))):
                continue
            if (fixed := _affected(affected, package)) is not None:
                yield Flaw(identifier, package, fixed, severity)


def _affected(affected: dict[str, Any], package: Package) -> str | None:
    """The version that fixes it, empty if none does; None: this version is not affected."""
    version = package.source_version or package.version
    if version in (affected.get("versions") or ()):
        return _fix(affected)
    for span in affected.get("ranges") or ():
        if span.get("type") not in ("ECOSYSTEM", "SEMVER"):
            continue
        inside, fixed = False, ""
        for event in span.get("events") or ():
            since = event.get("introduced")
            if since is not None and (since == "0" or _order(package, version, since) >= 0):
                inside, fixed = True, ""
            elif "fixed" in event and inside:
                if _order(package, version, event["fixed"]) >= 0:
                    inside = False
                else:
                    fixed = event["fixed"]
            elif "last_affected" in event and inside and _order(package, version, event["last_affected"]) > 0:
                inside = False
        if inside:
            return str(fixed)
    return None


def _fix(affected: dict[str, Any]) -> str:
    events = [e for s in affected.get("ranges") or () for e in s.get("events") or ()]
    return str(next((e["fixed"] for e in events if "fixed" in e), ""))


def _order(package: Package, one: str, other: str) -> int:
    if package.kind == "pypi":
        from packaging.version import InvalidVersion, Version

        try:
            return (Version(one) > Version(other)) - (Version(one) < Version(other))
        except InvalidVersion:
            return 0
    return compare(one, other)


def compare(one: str, other: str) -> int:
    """Order of Debian versions (deb-version(7)): -1, 0 or 1."""
    from debian.debian_support import NativeVersion

    first, second = NativeVersion(one), NativeVersion(other)
    return (first > second) - (first < second)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _not_affected(path: Path) -> Iterator[tuple[str, str]]:
    """(vulnerability, package; empty: the whole image) that a VEX document says are of no effect."""
    for document in _documents(path):
        if not isinstance(document, dict) or not ("statements" in document or "vulnerabilities" in document):
            raise ImageError(f"{path} is neither OpenVEX nor CycloneDX VEX", "")
        for statement in document.get("statements") or ():
            if statement.get("status") in ("not_affected", "fixed"):
                about = statement.get("vulnerability")
                identifier = about.get("name") if isinstance(about, dict) else about
                parts = [s for p in statement.get("products") or () for s in p.get("subcomponents") or ()]
                for part in parts or [{}]:
                    yield str(identifier), _name(str(part.get("@id", "")))
        for entry in document.get("vulnerabilities") or ():
            if (entry.get("analysis") or {}).get("state") in ("not_affected", "false_positive", "resolved"):
                for about in entry.get("affects") or [{}]:
                    yield str(entry.get("id")), _name(str(about.get("ref", "")))


def _name(reference: str) -> str:
    from packageurl import PackageURL

    try:
        return PackageURL.from_string(reference).name
    except ValueError:
        return ""
