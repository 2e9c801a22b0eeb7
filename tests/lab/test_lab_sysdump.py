"""One archive for a bug report, from a running lab."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from lab_objects import TOWPATH, Kubectl

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


def test_a_sysdump_holds_what_a_report_needs(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "dump.tgz"
    command = [*TOWPATH, "sysdump", "--kubeconfig", lab.kubeconfig, "--churn", "0", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as tar:
        names = tar.getnames()
        member = tar.extractfile("towpath-sysdump/inventory.json")
        assert member is not None
        inventory = json.load(member)
    pods = json.loads(kubectl("get", "pods", "-n", "kube-system", "-l", "k8s-app=towpath", "-o", "json"))[
        "items"
    ]
    assert pods
    for pod in pods:
        assert any(name.endswith(".current.log") and f"/{pod['metadata']['name']}/" in name for name in names)
    assert all(node["report"] for node in inventory["nodes"])
    assert "towpath-sysdump/README" in names
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 7
    assert "is there already" in again.stderr
    command[-1] = str(tmp_path / "none" / "x.tgz")
    nowhere = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert nowhere.returncode == 7
    assert "there is no folder" in nowhere.stderr
