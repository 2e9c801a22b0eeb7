"""The real image, from Debian's packages: twice in different folders, and what is in it works."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from towpath.image import apt, build, lock, pack
from towpath.image.audit.audit import Terms, audit
from towpath.image.audit.reading import read
from towpath.image.errors import ImageError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[build.Built]:
    made = []
    for name in ("one", "two/deeper"):
        folder = tmp_path_factory.mktemp("image") / name
        folder.parent.mkdir(exist_ok=True)
        made.append(build.build(build.project(), lock.machine(), folder, print))
    return made


def test_two_builds_are_equal_bit_for_bit(images: list[build.Built]) -> None:
    assert images[0].digest == images[1].digest
    assert images[0].archive.read_bytes() == images[1].archive.read_bytes()


def test_its_size_is_within_the_budget(images: list[build.Built]) -> None:
    assert pack.compressed_size(images[0].layout) <= 70_000_000


@pytest.fixture(scope="module")
def root(images: list[build.Built], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unpacked") / "root"
    root.mkdir()
    tag = build.REFERENCE.rpartition(":")[2]
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{images[0].layout}:{tag}", root], check=True)
    return root


RUNTIME_DATA = """
import json, pwd, socket, ssl, ctypes, sqlite3, asyncio, aiohttp, msgspec, yaml, structlog
ctypes.CDLL("libnftables.so.1")
print(json.dumps([
    socket.getprotobyname("sctp"), socket.getservbyname("https"), pwd.getpwuid(10531).pw_name,
    len(ssl.create_default_context().get_ca_certs()) > 100, socket.gethostbyname("localhost"),
]))
"""


def test_runtime_data_that_minimal_images_lose_is_there(root: Path) -> None:
    command = ["unshare", "--root", str(root), "/usr/bin/python3", "-c", RUNTIME_DATA]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [132, 443, "towpath", True, "127.0.0.1"]


def test_every_module_of_towpath_that_an_agent_or_installer_runs_is_there(root: Path) -> None:
    for module in ("cli.main", "agent.__main__", "install.node", "node_reader.__main__"):
        command = ["unshare", "--root", str(root), "/usr/bin/python3", "-c", f"import towpath.{module}"]
        subprocess.run(command, capture_output=True, check=True)


def test_nothing_but_python_and_the_launcher_can_be_executed(root: Path) -> None:
    programs = [p.name for folder in ("bin", "sbin") for p in (root / "usr" / folder).glob("*")]
    assert sorted(programs) == ["python3", "python3.11", "towpath-launch"]


def test_a_package_that_newer_patches_replaced_is_named_and_the_newest_is_there(tmp_path: Path) -> None:
    source = build.project()
    recipe, locked = (
        lock.read_recipe(source / "image/recipe.toml"),
        lock.read_lock(source / "image/lock.json"),
    )
    replaced = next(p for p in locked.packages[lock.machine()] if p.name == "libssl3")
    gone = msgspec.structs.replace(replaced, version="3.0.1-1", sha256="0" * 64)
    known = apt.Apt(tmp_path, recipe.suite, lock.machine())
    known.update()
    with pytest.raises(ImageError, match=r"libssl3 3\.0\.1-1 cannot be had") as refused:
        apt.fetch(gone, tmp_path, known, tmp_path)
    assert refused.value.code == apt.GONE
    newest = build.latest(source, (lock.machine(),), print).packages[lock.machine()]
    assert {p.name for p in newest} == {p.name for p in locked.packages[lock.machine()]}


def test_the_audit_finds_what_is_justified_and_nothing_else(images: list[build.Built]) -> None:
    image = read(images[0].layout)
    report = audit(image, Terms(now=datetime.now(UTC)))
    image.spool.close()
    found = {(f.code, f.path) for f in report.findings}
    page = (build.project() / "docs/security.md").read_text()
    listed = re.findall(r"^\| `(TP81\d\d)` \| `([^`]+)` \|", page, re.MULTILINE)
    assert found == set(listed)
