"""The real control plane starts, restarts, stops, and leaves nothing when its parent is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from planes import room

from towpath.lab import namespaces
from towpath.lab.real.binaries import KubeBinaries
from towpath.lab.real.controlplane import MASTERS, ControlPlane, Settings
from towpath.lab.rundir import LabError

pytestmark = pytest.mark.e2e

ADDRESSES = ("172.30.0.1", "fd00:172:30::1")
Kubectl = Callable[..., str]


@pytest.fixture
def netns() -> Iterator[int]:
    fd = room(*(f"{a}/{64 if ':' in a else 24}" for a in ADDRESSES))
    yield fd
    os.close(fd)


def test_a_cluster_with_two_families(binaries: KubeBinaries, netns: int, tmp_path: Path) -> None:
    plane = ControlPlane(binaries, tmp_path, Settings(addresses=ADDRESSES), netns)
    admin = tmp_path / "admin"
    admin.write_text(plane.kubeconfig("admin", "kubernetes-admin", MASTERS))

    def kubectl(*arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [binaries.kubectl, "--kubeconfig", admin, *arguments],
            input=given,
            capture_output=True,
            text=True,
            preexec_fn=lambda: namespaces.setns(netns, namespaces.CLONE_NEWNET),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    plane.start()
    try:
        kubectl("apply", "-f", "-", given=NODE)
        path = "jsonpath={.spec.podCIDRs}"
        _wait_for(lambda: "10.42." in kubectl("get", "node", "n1", "-o", path), "a podCIDR")
        assert "fd00:10:42:" in kubectl("get", "node", "n1", "-o", path)
        kubectl("apply", "-f", "-", given=SERVICE)
        both = kubectl("get", "service", "both", "-o", "jsonpath={.spec.clusterIPs}")
        assert "10.43." in both
        assert "fd00:10:43::" in both

        plane.stop_api()
        assert plane.problem()
        plane.tend()
        assert plane.pids["kube-apiserver"] == 0  # stopped is stopped
        plane.start_api()
        assert kubectl("get", "node", "n1", "-o", "name") == "node/n1"

        os.kill(plane.pids["kube-scheduler"], signal.SIGKILL)
        _wait_for(lambda: plane.pids["kube-scheduler"] == 0, "the scheduler's death")
        plane.tend()
        assert all(plane.pids.values())
    finally:
        plane.stop()
    assert not any(plane.pids.values())


def test_what_is_wrong_is_said_in_a_sentence(binaries: KubeBinaries, netns: int, tmp_path: Path) -> None:
    wrong = Settings(addresses=ADDRESSES, more={"kube-apiserver": ("--no-such-flag",)})
    plane = ControlPlane(binaries, tmp_path, wrong, netns)
    with pytest.raises(LabError, match=r"kube-apiserver ended.*no-such-flag.*TP9024"):
        plane.start()
    assert not any(plane.pids.values())


def test_nothing_outlives_its_parent(netns: int, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(netns)],
        pass_fds=[netns],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert len(pids) == 4
    child.kill()
    child.wait()
    child.stdout.close()
    _wait_for(lambda: not any(_alive(pid) for pid in pids), "the end of all processes")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"waited 300 s for {what}"
        time.sleep(0.1)


PARENT = """
import sys, time
from pathlib import Path
from towpath.lab.real.binaries import find_binaries
from towpath.lab.real.controlplane import ControlPlane, Settings
folder, netns = Path(sys.argv[1]), int(sys.argv[2])
plane = ControlPlane(find_binaries(lambda _: None), folder, Settings(addresses=("172.30.0.1",)), netns)
plane.start()
print(*plane.pids.values(), flush=True)
time.sleep(60)
"""

NODE = """
apiVersion: v1
kind: Node
metadata: {name: n1}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80}]
"""
