"""The node installer: whole files or none, whenever it is killed, and owners the agent can live with."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from towpath.install import configuration
from towpath.install.node import SHIM, InstallError, install

OWNER = (os.getuid(), os.getgid())

# Runs the installer and kills it at the Nth system call of interest, by replacing what os offers.
KILLED = """
import os, signal, sys
from pathlib import Path
left = int(sys.argv[2])
def counted(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "write" and len(args[1]) > 1:
            return real(args[0], bytes(args[1])[: (len(args[1]) + 1) // 2])
        return real(*args, **kwargs)
    setattr(os, name, call)
for name in ("open", "write", "fchmod", "fsync", "close", "replace", "symlink", "unlink"):
    counted(name)
from towpath.install.node import install
root = Path(sys.argv[1])
install(root / "bin", root / "net.d" / "10-towpath.conflist", root / "run", root / "state",
        (os.getuid(), os.getgid()))
"""


def _install(root: Path) -> None:
    install(root / "bin", root / "net.d" / "10-towpath.conflist", root / "run", root / "state", OWNER)


def _check_whole(root: Path) -> bool:
    """Every file that is there is whole; whether all are."""
    wanted = {
        root / "bin" / "towpath-cni": SHIM.read_bytes(),
        root / "bin" / "towpath-cni.socket": f"{root}/run/cni.sock\n".encode(),
        root / "net.d" / "10-towpath.conflist": configuration.conflist().encode(),
    }
    there = [path for path in wanted if path.exists()]
    for path in there:
        assert path.read_bytes() == wanted[path]
    if root / "net.d" / "10-towpath.conflist" in there:
        assert len(there) == len(wanted), "the node is Ready before the shim is there"
    loaded = [p for p in (root / "net.d").glob("*") if p.suffix in (".conf", ".conflist", ".json")]
    assert len(loaded) <= 1
    return len(there) == len(wanted)


def test_installs_and_leaves_alone_what_is_right(tmp_path: Path) -> None:
    _install(tmp_path)
    assert _check_whole(tmp_path)
    shim = tmp_path / "bin" / "towpath-cni"
    assert stat.S_IMODE(shim.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o770
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    _install(tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before
    (tmp_path / "net.d" / "10-towpath.conflist").write_text("{")
    shim.chmod(0o700)
    _install(tmp_path)
    assert _check_whole(tmp_path)
    assert stat.S_IMODE(shim.stat().st_mode) == 0o755


def test_a_shim_that_is_being_executed_is_replaced(tmp_path: Path) -> None:
    """Whoever writes into it instead is told "text file busy", as Flannel's and Calico's installers were."""
    shim = tmp_path / "bin" / "towpath-cni"
    shim.parent.mkdir()
    shutil.copy2(str(shutil.which("sleep")), shim)
    with subprocess.Popen([shim, "1000"]) as running:
        try:
            with pytest.raises(OSError, match="Text file busy"):
                shim.write_bytes(b"")
            _install(tmp_path)
            assert _check_whole(tmp_path)
            assert running.poll() is None
        finally:
            running.kill()


def test_the_version_in_force_is_seen_and_the_one_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("0.0.7", "0.0.8", "0.0.9"):
        monkeypatch.setattr("towpath.install.node.__version__", version)
        _install(tmp_path)
        assert (tmp_path / "bin/towpath-cni").readlink().name == f"towpath-cni-v{version}"
        assert _check_whole(tmp_path)
    names = {path.name for path in (tmp_path / "bin").iterdir()}
    before = {"towpath-cni-v0.0.8", "towpath-cni-v0.0.9"}
    assert names == {"towpath-cni", "towpath-ipam", "towpath-cni.socket", *before}
    monkeypatch.setattr("towpath.install.node.__version__", "0.0.8")  # back again
    _install(tmp_path)
    assert {path.name for path in (tmp_path / "bin").iterdir()} == names
    assert (tmp_path / "bin/towpath-cni").readlink().name == "towpath-cni-v0.0.8"


def test_killed_at_every_step(tmp_path: Path) -> None:
    for step in range(1, 200):
        root = tmp_path / str(step)
        root.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), str(step)], capture_output=True, text=True
        )
        whole = _check_whole(root)
        if done.returncode == 0:
            assert whole
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        _install(root)  # the init container's next try
        assert _check_whole(root)
    else:
        pytest.fail("the installer makes more steps than expected")


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").write_text("a file")
    with pytest.raises(InstallError, match=r"bin"):
        _install(tmp_path)
    (tmp_path / "bin").unlink()
    (tmp_path / "bin" / "towpath-cni").mkdir(parents=True)
    with pytest.raises(InstallError, match=r"towpath-cni"):
        _install(tmp_path)
