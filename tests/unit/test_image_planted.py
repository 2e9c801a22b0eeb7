"""Each check of the audit has a deliberately bad image in which it, and nothing else, is found."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from test_image_audit import (
    CHANGES,
    CONFIGS,
    FILES,
    HARDENED,
    LIBC,
    PROGRAMS,
    SBOM,
    TERMS,
    Seen,
    audited,
    built,
    judge,
    seen,
)
from test_image_pods import PODS

from image_cases import EPOCH, PACKAGED, good, layer, oci
from towpath.image.audit.audit import Terms
from towpath.image.audit.file_checks import Budget
from towpath.image.audit.rules import RULES
from towpath.image.tree import Tree, file

LISTED = [f"/{path}\n" for path in PACKAGED]
LIBRARY = ("-shared", "-fPIC", "-O2", "-nostdlib", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack")
GO = 'const char info[] __attribute__((section(".go.buildinfo"), used)) = "go1.22";\n'


def layout(where: Path, tree: Tree | None = None, *, mtime: int = EPOCH, beside: str = "") -> Path:
    return oci(where / "i", layer(tree or good(), mtime), beside=beside or "provenance signature")


def of_packages(tree: Tree) -> Tree:
    """Without an SBOM, and every file is a package's."""
    kept = {path: entry for path, entry in tree.items() if path != SBOM}
    names = [path for path, entry in kept.items() if entry.kind == "file"]
    return {**kept, "var/lib/dpkg/info/tool.list": file("".join(f"/{name}\n" for name in names))}


def with_ghost(tree: Tree) -> Tree:
    """With an SBOM that lists a package more than there is."""
    listed = json.loads(tree[SBOM].content)
    purl = "pkg:deb/debian/ghost@1.0-1"
    listed["components"].append({"type": "library", "name": "ghost", "version": "1.0-1", "purl": purl})
    return {**tree, SBOM: file(json.dumps(listed))}


def special(kind: bytes) -> Callable[[Path], Seen]:
    def found(where: Path) -> Seen:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            made = tarfile.TarInfo("srv/special")
            made.type, made.mode, made.mtime = kind, 0o600, EPOCH
            tar.addfile(made)
        tree = {**good(), "var/lib/dpkg/info/tool.list": file("/srv/special\n" + "".join(LISTED))}
        return seen(judge(oci(where / "i", layer(tree), out.getvalue())))

    return found


def library(name: str, source: str = "int f(void) { return 1; }\n") -> Callable[[Path], Seen]:
    def found(where: Path) -> Seen:
        content = built(where, LIBRARY, source)
        return audited(where, {f"usr/lib/{name}": file(content)})

    return found


def go(where: Path) -> Seen:
    program = built(where, HARDENED, GO + "int main(void) { return info[0]; }\n")
    return audited(where, {**LIBC, "usr/bin/go-tool": file(program, 0o755)})


def judged(terms: Terms = TERMS, **how: object) -> Callable[[Path], Seen]:
    return lambda where: seen(judge(layout(where, **how), terms))  # type: ignore[arg-type]


def vulnerable(**release: str) -> Callable[[Path], Seen]:
    def found(where: Path) -> Seen:
        feed = where / "feed.json"
        feed.write_text(json.dumps({"tools": {"CVE-2026-1": {"releases": {"bookworm": release}}}}))
        return seen(judge(layout(where), msgspec.structs.replace(TERMS, feed=feed)))

    return found


def deleted(where: Path) -> Seen:
    upper = layer({"srv/.wh.large": file("")})
    return seen(judge(oci(where / "i", layer({**good(), "srv/large": file("x" * 99)}), upper)))


WHOLE: dict[str, tuple[Callable[[Path], Seen], Seen]] = {
    "no provenance": (judged(beside="signature"), {("TP8109", "index.json")}),
    "no signature": (judged(beside="provenance"), {("TP8110", "index.json")}),
    "a device": (special(tarfile.CHRTYPE), {("TP8132", "srv/special")}),
    "a fifo": (special(tarfile.FIFOTYPE), {("TP8132", "srv/special")}),
    "a library of another name": (library("libother.so.1"), set()),
    "OpenSSL": (library("libcrypto.so.3"), {("TP8150", "usr/lib/libcrypto.so.3")}),
    "its FIPS provider": (library("ossl-modules/fips.so"), {("TP8150", "usr/lib/ossl-modules/fips.so")}),
    "its legacy provider": (
        library("ossl-modules/legacy.so"),
        {("TP8152", "usr/lib/ossl-modules/legacy.so")},
    ),
    "named latest": (
        lambda where: seen(judge(oci(where / "i", layer(good()), name="latest"))),
        {("TP8111", "latest")},
    ),
    "Go's own cryptography": (go, {("TP8151", "usr/bin/go-tool")}),
    "no SBOM": (
        judged(tree=of_packages(good()), beside="signature"),
        {("TP8170", "usr/share/sbom"), ("TP8109", "index.json")},
    ),
    "an SBOM of something else": (judged(tree=with_ghost(good())), {("TP8171", SBOM)}),
    "an SBOM that is none": (
        judged(tree=of_packages(good()) | {SBOM: file('{"bomFormat": "CycloneDX", "version": "one"}')}),
        {("TP8172", SBOM)},
    ),
    "a fix that is missing": (
        vulnerable(status="resolved", fixed_version="1.0-3", urgency="high"),
        {("TP8181", "tool 1.0-2+b1")},
    ),
    "no fix yet": (vulnerable(status="open", urgency="low"), {("TP8182", "tool 1.0-2+b1")}),
    "deleted in a later layer": (deleted, {("TP8190", "srv/large")}),
    "younger than itself": (judged(mtime=EPOCH + 3600), {("TP8191", "etc")}),
    "too many layers": (
        judged(msgspec.structs.replace(TERMS, budget=Budget(layers=0))),
        {("TP8192", "layers")},
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_planted_images(tmp_path: Path, name: str) -> None:
    found, wanted = WHOLE[name]
    assert found(tmp_path) == wanted


# TP8170 is of images that have nothing beside them either, and TP8109 says that.
TOGETHER = {"TP8170": {"TP8170", "TP8109"}}


def test_every_check_has_its_bad_image() -> None:
    tables = (FILES, CHANGES, CONFIGS, PODS, WHOLE)
    wanted = [{code for code, _ in case[1]} for table in tables for case in table.values()]
    wanted += [codes for _, _, codes in PROGRAMS.values()]
    wanted += [{"TP8145"}, {"TP8146"}]  # by themselves in test_image_audit.py
    missing = [code for code in RULES if TOGETHER.get(code, {code}) not in wanted]
    assert not missing, "no image has this planted, and only this"
