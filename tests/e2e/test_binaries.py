"""Where Kubernetes cannot be had: a sentence, a remedy, the log's place, and nothing half-made."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.lab.real import kubesource
from towpath.lab.real.binaries import ENVIRONMENT, PROGRAMS, find_binaries
from towpath.lab.rundir import LabError

pytestmark = pytest.mark.e2e

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("go", "dpkg-source", "rsync"))), reason="needs what builds Kubernetes"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for nothing."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def program(path: Path, says: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_a_folder_without_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROGRAMS[:-2]:
        program(tmp_path / name, "Kubernetes v1.33.0")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(LabError, match=rf"{tmp_path} lacks kube-proxy, kubectl.*TP9020"):
        find_binaries(print)


@pytest.mark.parametrize(
    ("says", "complaint"), [("Kubernetes v1.19.16", "1.20 is the oldest"), ("what?", "no version in")]
)
def test_programs_that_are_none_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, complaint: str
) -> None:
    for name in PROGRAMS:
        program(tmp_path / name, says)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(LabError, match=complaint):
        find_binaries(print)


@needs_tools
def test_a_disk_without_room(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(LabError, match=r"needs 8 GiB in .*, where 0\.0 GiB are free.*TP9021"):
        find_binaries(print)
    assert [p.name for p in (small_disk / "towpath" / "kubernetes").iterdir()] == [".lock"]


@needs_tools
def test_no_apt_source(tmp_path: Path) -> None:
    """The tests' network namespace reaches nobody."""
    complaint = rf"could not be fetched from .*the log is {tmp_path}/build.log.*TP9022"
    with pytest.raises(LabError, match=complaint):
        kubesource.build(tmp_path, lambda _: None)
    assert [p.name for p in tmp_path.iterdir()] == ["build.log"]


@needs_tools
def test_a_build_that_fails(tmp_path: Path) -> None:
    source = tmp_path / "kubernetes"
    source.mkdir()
    (source / "Makefile").write_text("all:\n\t@echo '!!! no such thing as a kubelet'; exit 3\n")
    log = tmp_path / "build.log"
    log.touch()
    said: list[str] = []
    with pytest.raises(LabError, match=rf"build of Kubernetes failed: .*the log is {log}.*TP9023"):
        kubesource.Workspace(tmp_path, log, said.append).compile(source)
    assert said == ["Kubernetes: building, which takes about five minutes"]
    assert "no such thing as a kubelet" in log.read_text()
