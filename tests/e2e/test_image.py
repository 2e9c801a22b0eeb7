"""The real image, from Debian's packages: twice in different folders, and what is in it works."""

import json
import subprocess
from pathlib import Path

import pytest

from towpath.image import build, lock, pack


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
    for module in ("towpath", "towpath.agent", "towpath.install.node", "towpath.node_reader"):
        command = ["unshare", "--root", str(root), "/usr/bin/python3", "-m", module, "--help"]
        subprocess.run(command, capture_output=True, check=True)


def test_nothing_but_python_can_be_executed(root: Path) -> None:
    programs = [p.name for folder in ("bin", "sbin") for p in (root / "usr" / folder).glob("*")]
    assert sorted(programs) == ["python3", "python3.11"]
