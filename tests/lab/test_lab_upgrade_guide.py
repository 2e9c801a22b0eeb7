"""docs/guides/upgrade-rke2-canal.md, command by command, as a newcomer would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab_objects import Kubectl
from lab_upgrade import SKIP

from towpath.catalogue import load
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "upgrade-rke2-canal.md"
# The lab is the tests' own; a rehearsal is test_lab_twin's.
_ELSEWHERE = re.compile(r"towpath lab (up|down|kubeconfig)|upgrade rehearse")
NEW = load.builtin().release("v1.32.2+rke2r1")


def commands() -> list[str]:
    lines = [line[2:] for line in GUIDE.read_text().splitlines() if line.startswith("$ ")]
    return [
        line.replace(" SKIP", f" {' '.join((*SKIP, '--churn', '0.2', '--no-probes'))}")
        for line in lines
        if not _ELSEWHERE.search(line)
    ]


def test_the_guide(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    """Every command ends as the guide says, and the four of Canal's instructions show the new versions."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "KUBECONFIG": lab.kubeconfig, "PATH": path}
    told: dict[str, str] = {}
    try:
        for command in commands():
            done = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {command}"],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            told[command] = done.stdout
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    finally:
        kubectl("delete", "daemonset", "-n", "kube-system", "rke2-canal", "rke2-multus", "--ignore-not-found")
        kubectl("delete", "configmap", "-n", "kube-system", "towpath-upgrade", "--ignore-not-found")
    line = told["kubectl get daemonset -n kube-system rke2-canal"].splitlines()[1].split()
    assert line[:6] == ["rke2-canal", "3", "3", "3", "3", "3"]
    for name in ("hardened-calico", "hardened-flannel", "hardened-cni-plugins"):
        assert f"{name}:{NEW.images[name]}" in told[f"kubectl get node -o yaml | grep -A1 {name}"]
    assert "report: " in told["towpath upgrade apply canal.json"]
    assert "<h1>Upgrade of kube-system/rke2-multus" in (tmp_path / "back.html").read_text()
