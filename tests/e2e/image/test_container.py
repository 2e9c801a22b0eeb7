"""The image as a container of runc's: another user, one capability, the shipped profile, a read-only root."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from towpath.image import build, lock, seccomp
from towpath.install.daemonset import LAUNCHER
from towpath.lab.rootfs import HOST

# In a world of its own, whose process 1 takes everything with it; the bundle must not lie behind a link.
RUN = """
set -e
cp -a "$1" /lab/bundle
mkdir -p /run/runc
cd /lab/bundle
exec runc --root /run/runc run image
"""
SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")
WORK = """
import asyncio, ctypes, json, os, socket, sqlite3, ssl, subprocess, threading
base = sqlite3.connect("/tmp/x.db")
base.execute("pragma journal_mode=wal"); base.execute("create table t(a)"); base.commit(); base.close()
async def main():
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, threading.get_ident)
ssl.create_default_context()
ctypes.CDLL("libnftables.so.1")
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
try:
    open("/usr/x", "w")
    wrote = True
except OSError:
    wrote = False
try:
    child = subprocess.run(["/usr/bin/python3", "-c", "pass"]).returncode
except PermissionError:
    child = "refused"
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "worked": bool(asyncio.run(main())),
    "child": child,
    "wrote": wrote,
    "status": {key: value.split() for key, value in status.items()},
}))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's files, and what Kubernetes asks of a runtime for the agent's container."""
    folder = tmp_path_factory.mktemp("container")
    built = build.build(build.project(), lock.machine(), folder / "image", print)
    tag = build.REFERENCE.rpartition(":")[2]
    bundle = folder / "bundle"
    bundle.mkdir()
    command = ["umoci", "raw", "unpack", "--image", f"{built.layout}:{tag}", f"{bundle}/rootfs"]
    subprocess.run(command, check=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    yield bundle


def run(
    bundle: Path,
    capability: str,
    *,
    no_new_privs: bool = False,
    given: tuple[str, ...] = ("bounding", "permitted", "effective"),
) -> subprocess.CompletedProcess[str]:
    file = bundle / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    sets = {key: [capability] if key in given else [] for key in SETS}
    config["process"] |= {
        "terminal": False,
        "args": [LAUNCHER, "/usr/bin/python3", "-I", "-c", WORK],
        "noNewPrivileges": no_new_privs,
        "user": {"uid": build.UID, "gid": build.UID},
        "capabilities": sets,
    }
    config["root"] = {"path": "rootfs", "readonly": True}
    config["mounts"] = [one for one in config["mounts"] if one["destination"] != "/tmp"]
    config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
    )
    config["linux"] |= {
        "seccomp": json.loads(seccomp.text()),
        "cgroupsPath": "/towpath-image-test",
    }
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "towpath.lab.real.world", "sh", "-c", RUN, "sh", f"{HOST}{bundle}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_it_works_as_another_user_with_one_capability_under_the_shipped_profile(bundle: Path) -> None:
    done = run(bundle, "CAP_NET_ADMIN")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["worked"], said["child"], said["wrote"]) == (True, "refused", False)
    status = said["status"]
    assert status["Uid"] == [str(build.UID)] * 4
    assert [status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [[f"{1 << 12:016x}"]] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert status["Seccomp_filters"] == ["2"], "the shipped one, and the launcher's"


def test_with_another_capability_it_does_not_start(bundle: Path) -> None:
    done = run(bundle, "CAP_NET_RAW")
    assert done.returncode != 0
    assert not done.stdout
    assert "operation not permitted" in done.stderr


def test_without_escalation_it_starts_only_where_the_runtime_permits_the_capability_itself(
    bundle: Path,
) -> None:
    """Under no_new_privs a file gives no more than was permitted before (capabilities(7), security.md)."""
    done = run(bundle, "CAP_NET_ADMIN", no_new_privs=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"]["CapEff"] == [f"{1 << 12:016x}"]
    done = run(bundle, "CAP_NET_ADMIN", no_new_privs=True, given=("bounding",))
    assert (done.returncode, done.stdout) == (7, "")
    assert "allowPrivilegeEscalation: true" in done.stderr
    done = run(bundle, "CAP_NET_ADMIN", given=("bounding",))
    assert done.returncode == 0, done.stderr
