"""What an image must bring along: runtime data, a package database, an SBOM that matches."""

import json
from collections.abc import Iterator
from typing import Any

from towpath.image.audit.contents import Image
from towpath.image.audit.packages import Inventory
from towpath.image.audit.rules import Found

# What programs read without saying so; minimal images that lost one broke networks (calico/node #207, #526).
_RUNTIME = (
    (("etc/passwd",), "names of users"),
    (("etc/group",), "names of groups"),
    (("etc/protocols", "usr/etc/protocols"), "names of protocols: getprotobyname fails without"),
    (("etc/services", "usr/etc/services"), "names of ports: getservbyname fails without"),
    (("etc/nsswitch.conf", "usr/etc/nsswitch.conf"), "where names are looked up: /etc/hosts may be ignored"),
    (("etc/os-release", "usr/lib/os-release"), "which distribution this is: scanners find nothing without"),
    (
        ("usr/share/zoneinfo/UTC", "usr/share/zoneinfo/Etc/UTC", "usr/lib/zoneinfo/UTC"),
        "time zones: none has a name without",
    ),
    (
        ("etc/ssl/certs/ca-certificates.crt", "etc/ssl/cert.pem", "etc/pki/tls/certs/ca-bundle.crt",
         "var/lib/ca-certificates/ca-bundle.pem", "etc/ssl/ca-bundle.pem"),
        "certificate authorities: TLS to public servers fails without",
    ),
)  # fmt: skip
_SBOM_FOLDERS = ("usr/share/sbom", "usr/lib/sbom", "sbom", "var/lib/db/sbom", "usr/local/share/sbom")
_SBOM_NAMES = (".cdx.json", ".spdx.json", "bom.json", "sbom.json")
_MUSL = ("lib/ld-musl-x86_64.so.1", "lib/ld-musl-aarch64.so.1")


def check_data(image: Image, found: Inventory) -> Iterator[Found]:
    """Runtime data, databases, SBOM."""
    musl = any(image.find(path) for path in _MUSL)
    for paths, why in _RUNTIME:
        if musl and "nsswitch" in paths[0]:
            continue  # musl has its own fixed order
        if not any((file := image.find(path)) and file.size for path in paths):
            yield Found(code="TP8160", path=paths[0], message=f"is missing: {why}")
    for path in found.unreadable:
        yield Found(code="TP8180", path=path, message="is an RPM database, which cannot be read here")
    if not found.databases and not found.unreadable:
        yield Found(code="TP8180", path="var/lib/dpkg/status", message="there is no package database")
    yield from _check_sbom(image, found)


def sboms(image: Image) -> dict[str, bytes]:
    """The SBOM documents inside the image, by path."""
    return {
        path: image.spool.read(file)
        for path, file in image.files.items()
        if file.kind == "file" and path.startswith(_SBOM_FOLDERS) and path.endswith(_SBOM_NAMES)
    }


def listed_files(image: Image) -> dict[str, str]:
    """Files that an SBOM inside answers for by themselves: path -> SHA-256 (empty: a link)."""
    files = {}
    for path, content in sboms(image).items():
        files[path] = ""
        for component in _components(content):
            if component.get("type") == "file":
                hashes = {h.get("alg"): h.get("content") for h in component.get("hashes") or ()}
                files[str(component.get("name", "")).lstrip("/")] = str(hashes.get("SHA-256", ""))
    return files


def _check_sbom(image: Image, found: Inventory) -> Iterator[Found]:
    documents = sboms(image)
    if not documents and not image.attestations:
        yield Found(
            code="TP8170", path="usr/share/sbom", message="there is no SBOM in the image or beside it"
        )
    for path, content in documents.items():
        if problem := _invalid(content):
            yield Found(code="TP8172", path=path, message=problem)
            continue
        named = {_identity(c) for c in _components(content) if c.get("type") != "file"}
        there = {(p.kind, _plain(p.name), p.version) for p in found.packages if p.kind != "rpm"}
        for kind, name, version in sorted(there - named):
            yield Found(code="TP8171", path=path, message=f"{kind} package {name} {version} is not listed")
        for kind, name, version in sorted(n for n in named - there if n[0] in ("deb", "apk", "pypi")):
            yield Found(
                code="TP8171", path=path, message=f"{kind} package {name} {version} is not in the image"
            )
        yield from _files_listed(image, path, content)


def _files_listed(image: Image, path: str, content: bytes) -> Iterator[Found]:
    for component in _components(content):
        if component.get("type") != "file":
            continue
        name = str(component.get("name", "")).lstrip("/")
        digest = next(
            (h.get("content") for h in component.get("hashes") or () if h.get("alg") == "SHA-256"), ""
        )
        there = image.files.get(name)
        if there is None or (digest and there.sha256 != digest):
            what = "missing" if there is None else "another than listed"
            yield Found(code="TP8171", path=path, message=f"file {name} is {what}")


def _invalid(content: bytes) -> str:
    try:
        document = json.loads(content)
    except ValueError as wrong:
        return f"is no JSON: {wrong}"
    if isinstance(document, dict) and document.get("spdxVersion"):
        missing = [k for k in ("SPDXID", "creationInfo", "name", "packages") if k not in document]
        return f"SPDX without {', '.join(missing)}" if missing else ""
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        return "is neither CycloneDX nor SPDX"
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        version = SchemaVersion.from_version(str(document.get("specVersion")))
        problem = JsonStrictValidator(version).validate_str(content.decode())
    except (ValueError, AttributeError, UnicodeError) as wrong:
        return f"its version cannot be validated: {wrong}"
    return f"is no valid CycloneDX: {str(problem.data.message)[:200]}" if problem else ""


def _components(content: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(content)
    except ValueError:
        return []
    if not isinstance(document, dict):
        return []
    if "spdxVersion" in document:
        return [
            {"purl": ref.get("referenceLocator"), "name": p.get("name"), "version": p.get("versionInfo")}
            for p in document.get("packages") or ()
            for ref in p.get("externalRefs") or ()
            if ref.get("referenceType") == "purl"
        ]
    return [c for c in document.get("components") or () if isinstance(c, dict)]


def _identity(component: dict[str, Any]) -> tuple[str, str, str]:
    from packageurl import PackageURL

    try:
        purl = PackageURL.from_string(str(component.get("purl")))
    except ValueError:
        return ("", _plain(str(component.get("name"))), str(component.get("version")))
    return (purl.type, _plain(purl.name), purl.version or "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
