"""A world ends with whoever is killed, and leaves no process, control group or folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from towpath.lab.real import cgroups

pytestmark = pytest.mark.e2e

WORLD = [sys.executable, "-m", "towpath.lab.real.world"]
# A machine's process 1 of its own group, as a node has: namespaces and groups below the world's.
INSIDE = """
import os, subprocess, time
from towpath.lab.real import cgroups
from towpath.lab.real.world import GROUP
found = cgroups.hierarchies()
group = os.environ[GROUP] + "/n1/kubepods/x"
cgroups.make(found, group)
cgroups.join(found, group)
subprocess.Popen(["sleep", "987654"])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of other runs, ended with their machine, are not this test's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_exit_code_is_the_commands(own_folder: Path) -> None:
    started = subprocess.Popen([*WORLD, "sh", "-c", "exit 42"])
    assert started.wait(60) == 42
    _wait_until_nothing_is_left(own_folder, started.pid)


def test_the_machine_is_read_only() -> None:
    here = Path(__file__)
    script = f"echo x >> {here} ; mkdir /etc/cni/net.d && touch /etc/cni/net.d/x && ls /sys/class/net"
    done = subprocess.run([*WORLD, "sh", "-c", script], capture_output=True, text=True)
    assert "Read-only" in done.stderr
    assert "eth0" not in done.stdout
    assert not Path("/etc/cni/net.d/x").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("inside", [False, True])
def test_killed(number: signal.Signals, inside: bool, own_folder: Path) -> None:
    started = subprocess.Popen([*WORLD, sys.executable, "-c", INSIDE], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    assert _left(own_folder, started.pid)
    victim = _children(started.pid)[-1] if inside else started.pid
    os.kill(victim, number if not inside else signal.SIGKILL)
    started.wait(10)
    started.stdout.close()
    _wait_until_nothing_is_left(own_folder, started.pid)


def _children(pid: int) -> list[int]:
    """Children, the sweeper first: process 1 is forked after it."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _left(folder: Path, world: int) -> list[str]:
    """What there is of the world whose process is ``world``, and of its folder."""
    there = (Path(one.at, f"{cgroups.PREFIX}{world}") for one in cgroups.hierarchies())
    groups = [str(group) for group in there if group.exists()]
    folders = [str(p) for p in folder.glob("towpath-real-*")]
    sleeping = [p.name for p in Path("/proc").glob("[0-9]*") if b"987654" in _command(p)]
    return groups + folders + sleeping


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _wait_until_nothing_is_left(folder: Path, world: int) -> None:
    deadline = time.monotonic() + 300
    while left := _left(folder, world):
        assert time.monotonic() < deadline, f"300 s later there is still {left}"
        time.sleep(0.05)
