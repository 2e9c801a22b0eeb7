"""Images made by hand for the audit's tests: a good one, and what makes it bad."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from towpath.image.lock import Package
from towpath.image.sbom import PATH, bill
from towpath.image.tree import CAPABILITY, Entry, Tree, file, folder, link, with_parents

EPOCH = 1_790_000_000
CREATED = "2026-09-21T14:13:20+00:00"
LABELS = {f"org.opencontainers.image.{k}": "x" for k in ("title", "version", "revision", "licenses")}
LABELS["org.opencontainers.image.base.name"] = "scratch"
PACKAGED = {
    "etc/protocols": "tcp 6 TCP\n",
    "etc/services": "https 443/tcp\n",
    "usr/share/tool/data": "data\n",
    "usr/share/zoneinfo/UTC": "TZif2",
}
_OWN: dict[str, Entry] = {
    "etc/passwd": file("root:x:0:0::/:/usr/sbin/nologin\napp:x:1000:1000::/:/usr/sbin/nologin\n"),
    "etc/group": file("root:x:0:\napp:x:1000:\n"),
    "etc/nsswitch.conf": file("hosts: files dns\n"),
    "etc/os-release": file("ID=debian\nVERSION_CODENAME=bookworm\n"),
    "etc/ssl/certs/ca-certificates.crt": file("-----BEGIN CERTIFICATE-----\n"),
}
_STATUS = """Package: tool
Status: install ok installed
Architecture: amd64
Source: tools (1.0-2)
Version: 1.0-2+b1
Description: test
 of a package
"""


def good() -> Tree:
    """A root file system in which the audit finds nothing."""
    md5 = {p: hashlib.md5(c.encode()).hexdigest() for p, c in PACKAGED.items()}
    tree: Tree = {
        **_OWN,
        **{path: file(content) for path, content in PACKAGED.items()},
        "var/lib/dpkg/status": file(_STATUS),
        "var/lib/dpkg/info/tool.list": file("".join(f"/{p}\n" for p in PACKAGED)),
        "var/lib/dpkg/info/tool.md5sums": file("".join(f"{d}  {p}\n" for p, d in md5.items())),
        "tmp": Entry("folder", 0o1777),
    }
    return with_bill(tree)


def with_bill(tree: Tree, own: Mapping[str, Entry] = _OWN) -> Tree:
    """``tree`` with an SBOM that answers for ``own``."""
    package = Package("tool", "1.0-2+b1", "0" * 64, 1, "")
    return {**tree, PATH: file(bill("image", "1", tree, dict(own), (package,), EPOCH, "bookworm"))}


def config(**inner: Any) -> dict[str, Any]:
    """A good configuration; ``inner`` replaces keys of its ``config``."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": {
            "User": "1000:1000",
            "Labels": dict(LABELS),
            "Healthcheck": {"Test": ["CMD", "/x"]},
            **inner,
        },
        "history": [{"created": CREATED, "created_by": "make image"}],
    }


def layer(tree: Tree, mtime: int = EPOCH) -> bytes:
    """A tar of ``tree``; names beginning with ``.wh.`` are whiteouts, as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, entry in with_parents(tree).items():
            member = tarfile.TarInfo(name)
            member.mode, member.uid, member.gid, member.mtime = entry.mode, entry.uid, entry.gid, mtime
            member.type = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(
                entry.kind, tarfile.REGTYPE
            )
            member.linkname, member.size = entry.target, len(entry.content)
            if entry.capability:
                member.pax_headers = {CAPABILITY: entry.capability.decode("ascii")}
            tar.addfile(member, io.BytesIO(entry.content))
    return out.getvalue()


BESIDE = {
    "provenance": {"vnd.docker.reference.type": "attestation-manifest"},
    "signature": {"org.opencontainers.image.ref.name": "x.sig"},
}


def oci(
    where: Path,
    *layers: bytes,
    image: Mapping[str, Any] | None = None,
    beside: str = "provenance signature",
    name: str = "v1",
) -> Path:
    """An OCI layout of uncompressed tars, gzipped here, called ``name``. ``beside``: words of ``BESIDE``."""
    blobs: dict[str, bytes] = {}

    def put(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    diff_ids = ["sha256:" + hashlib.sha256(each).hexdigest() for each in layers]
    whole = {**(image or config()), "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    media = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": f"{media}.config.v1+json", **put(json.dumps(whole).encode())},
        "layers": [
            {"mediaType": f"{media}.layer.v1.tar+gzip", **put(gzip.compress(each, mtime=0))}
            for each in layers
        ],
    }
    listed: list[dict[str, Any]] = [
        {"mediaType": f"{media}.manifest.v1+json", **put(json.dumps(manifest).encode())}
    ]
    listed[0]["annotations"] = {"org.opencontainers.image.ref.name": name}
    kinds = [BESIDE[word] for word in beside.split()]
    listed += [{**listed[0], "digest": f"sha256:{n}", "annotations": k} for n, k in enumerate(kinds)]
    where.mkdir(parents=True, exist_ok=True)
    (where / "blobs/sha256").mkdir(parents=True)
    for digest, content in blobs.items():
        (where / "blobs/sha256" / digest).write_bytes(content)
    (where / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (where / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    return where


def docker(where: Path, *layers: bytes, image: Mapping[str, Any] | None = None) -> Path:
    """A docker-archive, as ``docker save`` has made them for years."""
    diff_ids = ["sha256:" + hashlib.sha256(each).hexdigest() for each in layers]
    whole = json.dumps({**(image or config()), "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    name = hashlib.sha256(whole).hexdigest() + ".json"
    names = [f"{n}/layer.tar" for n in range(len(layers))]
    manifest = json.dumps([{"Config": name, "RepoTags": ["a:b"], "Layers": names}]).encode()
    archive = where / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for path, content in (*zip(names, layers, strict=True), (name, whole), ("manifest.json", manifest)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


__all__ = ["config", "docker", "file", "folder", "good", "layer", "link", "oci", "with_bill"]
