"""Images from packages: the same inputs give the same bytes, and nothing comes in that the recipe leaves out.

The real image is built twice and compared in tests/e2e/image; here from packages made by the test.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import msgspec
import pytest

from towpath.image import apt, build, debian, lock, pack, wheels
from towpath.image.errors import ImageError
from towpath.image.tree import Entry, Tree, file, folder, from_folder, link, merged, write_layer

ROOT = Path(__file__).parents[2]
RECIPE = lock.Recipe(
    "bookworm",
    ("one",),
    {},
    {},
    ("usr/bin/*", "usr/share/doc/*"),
    lock.Compiler({}, {}),
    ("usr/share/doc/*/copyright",),
)
EPOCH = 1_700_000_000


def deb(where: Path, name: str, files: dict[str, str], mode: int = 0o644) -> tuple[lock.Package, Path]:
    """A package made by dpkg-deb, as Debian's are."""
    root = where / name
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
        (root / path).chmod(mode)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: t <t@example.org>\n"
        "Description: test\n of a package\n"
    )
    out = where / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, out], check=True, capture_output=True
    )
    made = out.read_bytes()
    return lock.Package(name, "1.0-1", hashlib.sha256(made).hexdigest(), len(made), f"{name}.deb"), out


FILES = {
    "lib/x86_64-linux-gnu/libone.so": "library",
    "usr/bin/tool": "not wanted",
    "usr/share/doc/one/copyright": "free",
    "usr/share/doc/one/README": "not wanted",
    "usr/share/ca-certificates/mozilla/A.crt": "-----A-----\n",
    "usr/share/ca-certificates/mozilla/B.crt": "-----B-----\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return debian.unpack(dict([deb(tmp_path, "one", FILES)]), RECIPE)


def test_only_what_is_wanted_comes_in(tree: Tree) -> None:
    assert tree["usr/lib/x86_64-linux-gnu/libone.so"] == file("library"), "merged into /usr"
    assert tree["lib"] == link("usr/lib")
    assert "usr/bin/tool" not in tree and "usr/share/doc/one/README" not in tree
    assert tree["usr/share/doc/one/copyright"].content == b"free"


def test_the_database_lists_what_came_in(tree: Tree) -> None:
    (record,) = apt.records(tree["var/lib/dpkg/status"].content.decode())
    assert (record["Package"], record["Status"]) == ("one", "install ok installed")
    listed = tree["var/lib/dpkg/info/one.list"].content.decode().split()
    assert "/usr/lib/x86_64-linux-gnu/libone.so" in listed and "/usr/bin/tool" not in listed
    assert (
        f"{hashlib.md5(b'library').hexdigest()}  usr/lib"
        in tree["var/lib/dpkg/info/one.md5sums"].content.decode()
    )


def test_authorities_are_one_file(tree: Tree) -> None:
    assert tree["etc/ssl/certs/ca-certificates.crt"].content == b"-----A-----\n-----B-----\n"


def test_setuid_is_refused(tmp_path: Path) -> None:
    package, path = deb(tmp_path, "one", {"usr/lib/tool": "x"}, 0o4755)
    with pytest.raises(ImageError, match=r"one: usr/lib/tool is setuid"):
        debian.unpack({package: path}, RECIPE)


def test_another_version_than_the_lock_says_is_refused(tmp_path: Path) -> None:
    package, path = deb(tmp_path, "one", {"usr/lib/tool": "x"})
    newer = lock.Package("one", "1.0-2", package.sha256, package.size, package.filename)
    with pytest.raises(ImageError, match=r"is 1\.0-1, and the lock says 1\.0-2"):
        debian.unpack({newer: path}, RECIPE)


class Mirror(apt.Apt):
    """A mirror that has one file for every package."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def download(self, package: lock.Package, folder: Path) -> None:
        (folder / "got.deb").write_bytes(self.content)


def test_a_package_of_another_hash_is_refused_and_not_kept(tmp_path: Path) -> None:
    package, _ = deb(tmp_path, "one", {"usr/lib/a": "x"})
    with pytest.raises(ImageError, match="but the lock says") as refused:
        apt.fetch(package, tmp_path, Mirror(b"something else"), tmp_path)
    assert refused.value.code == "TP8002"
    assert not list(tmp_path.glob(f"{package.sha256}.deb"))


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    package, path = deb(tmp_path, "one", {"usr/lib/a": "x"})
    (tmp_path / f"{package.sha256}.deb").write_bytes(b"damaged")
    got = apt.fetch(package, tmp_path, Mirror(path.read_bytes()), tmp_path)
    assert got.read_bytes() == path.read_bytes()


def layout(tree: Tree, where: Path) -> str:
    where.mkdir(parents=True)
    settings = pack.Settings("amd64", "1:1", ("/usr/bin/x",), ("A=b c",), {"t": "two words"})
    digest = pack.write_layout(tree, settings, EPOCH, where / "layout", "v1", where)
    pack.write_archive(where / "layout", where / "image.tar", "docker.io/a/b:v1")
    return digest


def test_two_builds_in_different_folders_and_times_are_equal_bit_for_bit(tmp_path: Path) -> None:
    trees: list[Tree] = []
    for name in ("a", "deeper/than/a"):
        where = tmp_path / name
        where.mkdir(parents=True)
        trees.append(debian.unpack(dict([deb(where, "one", FILES)]), RECIPE))
        os.utime(where / "one.deb", (1, 1))
    again = dict(reversed(trees[1].items()))  # the order in which files are found counts for nothing
    digests = [layout(t, tmp_path / n) for t, n in ((trees[0], "x"), (again, "elsewhere/y"))]
    assert digests[0] == digests[1]
    archives = [(tmp_path / n / "image.tar").read_bytes() for n in ("x", "elsewhere/y")]
    assert archives[0] == archives[1]
    changed = {**trees[0], "etc/new": file("x")}
    assert layout(changed, tmp_path / "z") != digests[0], "but another file does"


def test_times_owners_and_capabilities_of_a_layer(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200100000000000000000000000000000")
    tree = {"usr/bin/x": Entry("file", 0o755, content=b"x", capability=capability), "l": link("usr")}
    write_layer(tree, tmp_path / "layer.tar", EPOCH)
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {m.name: m for m in tar}
    assert list(members) == ["l", "usr", "usr/bin", "usr/bin/x"]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(EPOCH, 0, 0, "")}
    assert members["usr/bin/x"].pax_headers["SCHILY.xattr.security.capability"].encode() == capability
    assert abs(time.time() - EPOCH) > 1


def test_parts_that_differ_in_a_file_are_refused() -> None:
    assert merged(({"a": folder(), "a/b": file("x")}, {"a": folder(0o700)}))["a"].mode == 0o700
    with pytest.raises(ImageError, match="a/b is in two parts"):
        merged(({"a/b": file("x")}, {"a/b": file("y")}))


def test_site_packages_without_tests_sources_and_the_builder_s_records(tmp_path: Path) -> None:
    for path, content in {
        "pkg/__init__.py": "",
        "pkg/fast.c": "",
        "pkg/tests/test_it.py": "",
        "towpath/__pycache__/log.cpython-311.pyc": "of whoever imported it",
        "pkg-1.dist-info/METADATA": "Name: pkg",
        "pkg-1.dist-info/RECORD": "pkg/__init__.py,,\npkg/fast.c,,\n../bin/pkg,,\npkg-1.dist-info/RECORD,,\n",
        "pkg-1.dist-info/direct_url.json": "{}",
        "bin/pkg": "#!",
        "_virtualenv.pth": "import evil",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    kept = wheels.sifted(from_folder(tmp_path))
    names = {path.removeprefix(f"{wheels.SITE}/") for path in kept}
    assert names == {"pkg/__init__.py", "pkg-1.dist-info/METADATA", "pkg-1.dist-info/RECORD"}
    record = kept[f"{wheels.SITE}/pkg-1.dist-info/RECORD"].content.decode()
    assert record == "pkg-1.dist-info/RECORD,,\npkg/__init__.py,,\n"


def test_what_a_refresh_changed() -> None:
    old = lock.Lock(1, {"amd64": (lock.Package("a", "1", "x", 1, ""), lock.Package("b", "1", "y", 1, ""))})
    new = lock.Lock(2, {"amd64": (lock.Package("a", "2", "z", 1, ""), lock.Package("c", "1", "v", 1, ""))})
    assert lock.changes(old, new) == ["amd64 a 1 -> 2", "amd64 c 1 is new", "amd64 b 1 is gone"]
    assert lock.changes(new, new) == []
    compiled = msgspec.structs.replace(new, compilers={"amd64-on-amd64": new.packages["amd64"][:1]})
    assert lock.changes(new, compiled) == ["compiler amd64-on-amd64 a 2 is new"]
    assert lock.changes(compiled, new) == []


def test_an_image_that_no_locked_compiler_can_make_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("recipe.toml", "lock.json"):
        (folder / name).write_bytes((ROOT / "image" / name).read_bytes())
    locked = lock.read_lock(folder / "lock.json")
    lock.write_lock(msgspec.structs.replace(locked, compilers={}), folder / "lock.json")
    here = lock.machine()
    with pytest.raises(ImageError, match=f"has no compiler {here}-on-{here}"):
        build.build(tmp_path, here, tmp_path / "built", print, locked=lock.Lock(EPOCH, {here: ()}))


@pytest.mark.parametrize("kind", [build.AGENT, build.TAKEOVER])
def test_recipe_and_lock_of_the_repository_fit(kind: build.Kind) -> None:
    recipe, locked = kind.recipe(ROOT), lock.read_lock(ROOT / "image" / kind.lockfile)
    assert set(locked.packages) == set(lock.MULTIARCH)
    for packages in locked.packages.values():
        names = {p.name for p in packages}
        assert set(recipe.packages) <= names and not names & set(recipe.left_out)
    if kind == build.AGENT:
        assert set(locked.compilers) == {"amd64-on-amd64", "arm64-on-arm64", "arm64-on-amd64"}
    for name, packages in locked.compilers.items():
        names = {p.name for p in packages}
        assert set(recipe.compiler.packages[name]) <= names and not names & set(recipe.compiler.left_out)


def test_the_takeover_has_iptables_beyond_the_agent_and_nobody_has_a_shell() -> None:
    agent, takeover = build.AGENT.recipe(ROOT), build.TAKEOVER.recipe(ROOT)
    assert set(takeover.packages) - set(agent.packages) == {"iptables", "ipset"}
    for program in ("usr/sbin/iptables-nft-restore", "usr/sbin/ip6tables-legacy-save", "usr/sbin/ipset"):
        assert (agent.wanted(program), takeover.wanted(program)) == (False, True)
    assert not takeover.wanted("usr/bin/dash") and not takeover.wanted("usr/sbin/xtables-monitor")


@pytest.mark.parametrize("content", ["", "suite = [", "x = 1"])
def test_recipes_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(ImageError, match=r"recipe\.toml"):
        lock.read_recipe(tmp_path / "recipe.toml")


def test_dependencies_of_a_record() -> None:
    record = {"Depends": "libc6 (>= 2.36), python3:any, a | b, c", "Pre-Depends": "d"}
    assert list(apt.dependencies(record)) == ["d", "libc6", "python3", "a", "c"]


def test_a_layer_that_leaves_the_image_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/cron.d/evil"))
    from towpath.image.tree import from_tar

    with pytest.raises(ImageError, match="leaves the image"):
        from_tar((tmp_path / "x.tar").read_bytes(), "x")


def test_who_runs_from_an_arm64_image_does_without_what_is_left_out_of_it() -> None:
    recipe = lock.read_recipe(build.project() / "image/recipe.toml")
    there, lacking = set(recipe.python_without("amd64")), set(recipe.python_without("arm64"))
    assert lacking - there == {"hdrhistogram"}
    run = ("towpath.agent.__main__", "towpath.agent.ns", "towpath.install.node", "towpath.cli.main")
    code = f"import sys; sys.modules['hdrh'] = None; import {', '.join(run)}"
    subprocess.run([sys.executable, "-c", code], check=True)
