"""The audit finds what was planted in an image, and nothing else."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from image_cases import LABELS, config, docker, good, layer, oci, with_bill
from towpath.image.audit.audit import Report, Terms, audit
from towpath.image.audit.file_checks import Budget, capabilities
from towpath.image.audit.reading import read
from towpath.image.audit.rules import RULES
from towpath.image.tree import Entry, Tree, file, folder, link
from towpath.model.codes_image import IMAGE

TERMS = Terms(now=datetime(2026, 10, 1, tzinfo=UTC))
Seen = set[tuple[str, str]]


def judge(path: Path, terms: Terms = TERMS) -> Report:
    image = read(path)
    try:
        return audit(image, terms)
    finally:
        image.spool.close()


def seen(report: Report) -> Seen:
    return {(f.code, f.path) for f in report.findings}


def test_a_good_image_is_clean(tmp_path: Path) -> None:
    report = judge(oci(tmp_path / "i", layer(good())))
    assert report.findings == ()
    assert (report.user, report.layers) == ("1000:1000", 1)
    assert {(p.kind, p.name, p.version, p.source_version) for p in report.packages} == {
        ("deb", "tool", "1.0-2+b1", "1.0-2")
    }


def test_a_good_docker_archive_is_clean_but_for_what_its_format_cannot_hold(tmp_path: Path) -> None:
    assert seen(judge(docker(tmp_path, layer(good())))) == {
        ("TP8109", "index.json"),
        ("TP8110", "index.json"),
    }


def test_every_code_of_images_is_a_rule_or_a_refusal() -> None:
    refusals = {f"TP80{n:02}" for n in (1, 2, 3, 10, 11, 12, 13, 14, 15, 16)}
    assert set(IMAGE) == set(RULES) | refusals


# What is planted beside the good files, and what the audit must say of it. Planted files are in the SBOM,
# except where that is the point.
RSA = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n"
FILES: dict[str, tuple[Tree, Seen]] = {
    "shell": ({"usr/bin/dash": file("x", 0o755)}, {("TP8120", "usr/bin/dash")}),
    "shell as a link": (
        {"usr/bin/sh": link("tool"), "usr/bin/tool": file("x", 0o755)},
        {("TP8120", "usr/bin/sh")},
    ),
    "package manager": ({"usr/bin/apt-get": file("x", 0o755)}, {("TP8121", "usr/bin/apt-get")}),
    "pip of a version": ({"usr/local/bin/pip3.11": file("x", 0o755)}, {("TP8121", "usr/local/bin/pip3.11")}),
    "compiler": (
        {"usr/bin/x86_64-linux-gnu-gcc-12": file("x", 0o755)},
        {("TP8122", "usr/bin/x86_64-linux-gnu-gcc-12")},
    ),
    "cache": ({"var/lib/apt/lists/x_Packages": file("x")}, {("TP8123", "var/lib/apt/lists/")}),
    "tests at the top": ({"tests/test_a.py": file("x")}, {("TP8123", "tests")}),
    "tests": ({"usr/lib/p/tests/test_a.py": file("x")}, {("TP8123", "usr/lib/p/tests")}),
    "setuid": ({"usr/lib/su": file("x", 0o4755)}, {("TP8124", "usr/lib/su")}),
    "setgid": ({"usr/lib/wall": file("x", 0o2755)}, {("TP8124", "usr/lib/wall")}),
    "capability": (
        {"usr/lib/p": Entry("file", 0o755, capability=bytes.fromhex("01000002" + "00100000" + "00" * 12))},
        {("TP8125", "usr/lib/p")},
    ),
    "world-writable": ({"usr/lib/open": file("x", 0o666)}, {("TP8126", "usr/lib/open")}),
    "world-writable folder": ({"srv/open": folder(0o777)}, {("TP8126", "srv/open")}),
    "nobody's": ({"srv/x": Entry("file", 0o644, 4242, 0)}, {("TP8127", "srv/x")}),
    "private key": ({"etc/ssl/private/key.pem": file(RSA)}, {("TP8130", "etc/ssl/private/key.pem:1")}),
    "token": (
        {"srv/env": file("\n\nT=ghp_" + "a1B2" * 9)},
        {("TP8130", "srv/env:3")},
    ),
    "empty password": (
        {"etc/shadow": file("root::1:::::\n", 0o600)},
        {("TP8131", "etc/shadow")},
    ),
    "elf": ({"usr/lib/broken": file(b"\x7fELF" + b"\x02" * 100)}, {("TP8147", "usr/lib/broken")}),
}


@pytest.mark.parametrize("name", FILES)
def test_planted_files(tmp_path: Path, name: str) -> None:
    planted, wanted = FILES[name]
    tree = {**good(), **planted}
    listed = {p: e for p, e in tree.items() if not p.startswith(("var/lib/dpkg/", "usr/share/sbom"))}
    assert seen(judge(oci(tmp_path / "i", layer(with_bill(tree, listed))))) == wanted


def replaced(path: str, entry: Entry | None) -> Callable[[Tree], Tree]:
    def change(tree: Tree) -> Tree:
        changed = {p: e for p, e in tree.items() if p != path}
        return changed if entry is None else {**changed, path: entry}

    return change


SBOM = "usr/share/sbom/towpath-agent.cdx.json"
CHANGES: dict[str, tuple[Callable[[Tree], Tree], Seen]] = {
    "planted": (replaced("srv/planted", file("x")), {("TP8128", "srv/planted")}),
    "altered": (replaced("etc/services", file("ssh 22/tcp\n")), {("TP8129", "etc/services")}),
    "no protocols": (replaced("etc/protocols", None), {("TP8160", "etc/protocols")}),
    "no time zones": (replaced("usr/share/zoneinfo/UTC", None), {("TP8160", "usr/share/zoneinfo/UTC")}),
    "empty authorities": (
        lambda tree: with_bill(
            {**tree, "etc/ssl/certs/ca-certificates.crt": file("")},
            {p: tree[p] for p in ("etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/os-release")}
            | {"etc/ssl/certs/ca-certificates.crt": file("")},
        ),
        {("TP8160", "etc/ssl/certs/ca-certificates.crt")},
    ),
    "no SBOM in the image": (replaced("srv", folder()), set()),
    "SBOM lacks a package": (
        replaced(
            "usr/lib/python3/dist-packages/lib-1.dist-info/METADATA", file("Name: lib\nVersion: 1\n")
        ),
        {("TP8171", SBOM), ("TP8128", "usr/lib/python3/dist-packages/lib-1.dist-info/METADATA")},
    ),
    "SBOM lists another file": (
        replaced("etc/nsswitch.conf", file("hosts: dns\n")),
        {("TP8171", SBOM), ("TP8128", "etc/nsswitch.conf")},
    ),
    "SBOM is broken": (
        replaced(SBOM, file('{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": "one"}')),
        {("TP8172", SBOM)} | {("TP8128", p) for p in ("etc/passwd", "etc/group", "etc/nsswitch.conf",
                              "etc/os-release", "etc/ssl/certs/ca-certificates.crt")},
    ),
    "no database": (
        lambda tree: {p: e for p, e in tree.items() if not p.startswith("var/lib/dpkg")},
        {("TP8180", "var/lib/dpkg/status"), ("TP8171", SBOM)},
    ),
    "an RPM database": (
        replaced("usr/lib/sysimage/rpm/Packages.db", file(b"RpmP")),
        {("TP8180", "usr/lib/sysimage/rpm/Packages.db")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files(tmp_path: Path, name: str) -> None:
    change, wanted = CHANGES[name]
    assert seen(judge(oci(tmp_path / "i", layer(change(good()))))) == wanted


def without(label: str) -> dict[str, Any]:
    return {"Labels": {k: v for k, v in LABELS.items() if not k.endswith(label)}}


CONFIGS: dict[str, tuple[dict[str, Any], Seen]] = {
    "no user": (config(User=""), {("TP8101", "config.User")}),
    "root": (config(User="0:0"), {("TP8101", "config.User")}),
    "root by name": (config(User="root"), {("TP8101", "config.User")}),
    "a name": (config(User="app"), {("TP8102", "config.User")}),
    "no base": (config(**without("base.name")), {("TP8103", "org.opencontainers.image.base.digest")}),
    "no health": (config(Healthcheck=None), {("TP8104", "config.Healthcheck")}),
    "secret": (config(Env=["DB_PASSWORD=hunter2hunter2"]), {("TP8106", "config.Env DB_PASSWORD")}),
    "path of a secret": (config(Env=["DB_PASSWORD_FILE=/run/secrets/db"]), set()),
    "no title": (config(**without(".title")), {("TP8107", "org.opencontainers.image.title")}),
    "old": ({**config(), "created": "2026-01-01T00:00:00Z"}, {("TP8108", "created"), ("TP8191", "tmp")}),
    "no age": ({**config(), "created": None}, {("TP8108", "created")}),
    "remote add": (
        {**config(), "history": [{"created_by": "ADD http://example.org/x /x"}]},
        {("TP8105", "history[0]")},
    ),
    "remote add with its hash": (
        {**config(), "history": [{"created_by": "ADD --checksum=sha256:aa https://example.org/x /x"}]},
        set(),
    ),
    "packages that nobody signed": (
        {**config(), "history": [{"created_by": "RUN apt-get install -y --allow-unauthenticated x"}]},
        {("TP8105", "history[0]")},
    ),
    "a repository that is trusted blindly": (
        {**config(), "history": [{"created_by": "RUN echo 'deb [trusted=yes] https://x y z' > /etc/apt/x"}]},
        {("TP8105", "history[0]")},
    ),
    "upgrade": (
        {**config(), "history": [{"created_by": "RUN zypper -n update && zypper clean"}]},
        {("TP8105", "history[0]")},
    ),
    "lone update": (
        {**config(), "history": [{"created_by": "RUN apt-get update"}]},
        {("TP8105", "history[0]")},
    ),
    "update and install": (
        {**config(), "history": [{"created_by": "RUN apt-get update && apt-get install -y x"}]},
        set(),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(tmp_path: Path, name: str) -> None:
    given, wanted = CONFIGS[name]
    found = seen(judge(oci(tmp_path / "i", layer(good()), image=given)))
    late = {(code, "x" if code == "TP8191" else path) for code, path in found}
    assert late == {(code, "x" if code == "TP8191" else path) for code, path in wanted}


def test_a_secret_in_a_lower_layer_is_found_though_it_was_deleted(tmp_path: Path) -> None:
    lower, upper = layer({**good(), "root/.ssh/id": file(RSA)}), layer({"root/.ssh/.wh.id": file("")})
    assert seen(judge(oci(tmp_path / "i", lower, upper))) == {
        ("TP8190", "root/.ssh/id"),
        ("TP8130", "root/.ssh/id:1"),
    }


def test_opaque_folders_and_replaced_files(tmp_path: Path) -> None:
    lower = layer({**good(), "srv/a/one": file("1"), "srv/a/two": file("2"), "srv/b": file("3")})
    upper = layer({"srv/a/.wh..wh..opq": file(""), "srv/b": file("4")})
    report = judge(oci(tmp_path / "i", lower, upper))
    assert {p for c, p in seen(report) if c == "TP8190"} == {"srv/a/one", "srv/a/two", "srv/b"}
    assert {p for c, p in seen(report) if c == "TP8128"} == {"srv/b"}


def test_budgets(tmp_path: Path) -> None:
    terms = msgspec.structs.replace(TERMS, budget=Budget(compressed=10, files=3, layers=0))
    report = judge(oci(tmp_path / "i", layer(good())), terms)
    assert seen(report) == {("TP8192", p) for p in ("bytes compressed", "entries", "layers")}


def test_age_is_counted_from_the_given_day(tmp_path: Path) -> None:
    terms = msgspec.structs.replace(TERMS, max_age=timedelta(days=5))
    assert seen(judge(oci(tmp_path / "i", layer(good())), terms)) == {("TP8108", "created")}


def test_a_root_file_system_is_judged_by_its_files(tmp_path: Path) -> None:
    from towpath.image.tree import write_folder

    root = tmp_path / "root"
    root.mkdir()
    write_folder({**good(), "usr/bin/bash": file("x", 0o755)}, root)
    assert ("TP8120", "usr/bin/bash") in seen(judge(root))
    assert not {c for c, _ in seen(judge(root))} & {"TP8101", "TP8107", "TP8108"}, "it has no configuration"


# ---- programs

MAIN = """#include <stdio.h>
#include <string.h>
int main(int n, char **v) { char b[64]; strcpy(b, v[0]); return puts(b); }
"""
HARDENED = ("-O2", "-fPIE", "-pie", "-fstack-protector-strong", "-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack")
FILL = "".join(f"int f{n}(int a){{return a*{n}+{n};}}\n" for n in range(1200))
PROGRAMS: dict[str, tuple[tuple[str, ...], str, set[str]]] = {
    "hardened": (HARDENED, MAIN, set()),
    "no PIE": ((*HARDENED, "-fno-PIE", "-no-pie"), MAIN, {"TP8140"}),
    "partial RELRO": ((*HARDENED, "-Wl,-z,lazy"), MAIN, {"TP8141"}),
    "no RELRO": ((*HARDENED, "-Wl,-z,norelro"), MAIN, {"TP8141"}),
    "executable stack": ((*HARDENED, "-Wl,-z,execstack"), MAIN, {"TP8142"}),
    "no canary": ((*HARDENED, "-fno-stack-protector"), MAIN + FILL, {"TP8143"}),
    "RPATH": ((*HARDENED, "-Wl,-rpath,/home/me/lib"), MAIN, {"TP8144"}),
    "RPATH beside": ((*HARDENED, "-Wl,-rpath,$ORIGIN/../lib"), MAIN, set()),
}


def built(where: Path, flags: tuple[str, ...], source: str) -> bytes:
    (where / "a.c").write_text(source)
    subprocess.run(["cc", *flags, "-w", "-o", where / "a", where / "a.c"], check=True, capture_output=True)
    return (where / "a").read_bytes()


def audited(where: Path, programs: Tree, **inner: Any) -> Seen:
    tree = {**good(), **programs}
    listed = {p: e for p, e in tree.items() if not p.startswith(("var/lib/dpkg/", "usr/share/sbom"))}
    return seen(judge(oci(where / "i", layer(with_bill(tree, listed)), image={**config(), **inner})))


LIBC: Tree = {
    "lib64/ld-linux-x86-64.so.2": file("loader"),
    "lib/x86_64-linux-gnu/libc.so.6": file("libc"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_how_programs_are_hardened(tmp_path: Path, name: str) -> None:
    flags, source, wanted = PROGRAMS[name]
    program = built(tmp_path, flags, source)
    found = audited(tmp_path, {**LIBC, "usr/bin/a": file(program, 0o755)})
    assert found == {(code, "usr/bin/a") for code in wanted}


def test_libraries_and_loaders_that_are_missing(tmp_path: Path) -> None:
    program = built(tmp_path, HARDENED, MAIN)
    tree = {"usr/bin/a": file(program, 0o755), "lib64/ld-linux-x86-64.so.2": file("loader")}
    assert audited(tmp_path / "1", tree) == {("TP8145", "usr/bin/a")}
    assert audited(tmp_path / "2", {"usr/bin/a": file(program, 0o755)}) == {("TP8145", "usr/bin/a")}
    conf: Tree = {"etc/ld.so.conf": file("/opt/lib\n"), "opt/lib/libc.so.6": file("libc")}
    assert audited(tmp_path / "3", {**tree, **conf}) == set()


def test_programs_of_another_architecture(tmp_path: Path) -> None:
    program = built(tmp_path, HARDENED, MAIN)
    found = audited(tmp_path, {**LIBC, "usr/bin/a": file(program, 0o755)}, architecture="arm64")
    assert found == {("TP8146", "usr/bin/a")}


def test_names_of_capabilities() -> None:
    assert capabilities(bytes.fromhex("0100000200300000" + "00" * 12)) == ["NET_ADMIN", "NET_RAW"]
    assert capabilities(b"short") == ["capabilities that cannot be read"]
