"""``towpath probe`` under the real API server, kubelet and containerd, while agents are replaced."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from installed import Installed

pytestmark = pytest.mark.e2e

TOWPATH = (sys.executable, "-m", "towpath")


def test_agents_are_replaced_under_probes_and_nothing_is_lost(cluster: Installed) -> None:
    kubectl = f"{cluster.real.binaries.kubectl} --kubeconfig {cluster.real.kubeconfig} -n kube-system"
    roll = f"{kubectl} rollout restart daemonset/towpath && {kubectl} rollout status daemonset/towpath"
    with tempfile.TemporaryDirectory() as folder:
        result = probed(cluster, Path(folder), "--while", roll)
    assert not result["left_out"]
    paths = {path["path"] for path in result["paths"]}
    assert {"pod → pod, cross node", "pod → service", "pod → another node, SNAT", "node → NodePort"} <= paths
    total = result["total"]
    print(f"probe: {result['judgement']['level']}, {total}")
    assert (total["lost"], total["opened"]) == (0, 0)

    def gone() -> bool:
        return "towpath-probe" not in cluster.real.kubectl("get", "namespaces")

    cluster.real.wait_until(gone, "the probe's namespace gone", 180)


def probed(cluster: Installed, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run it with the agent's own image; the result as JSON."""
    light = ("--slower", "4", "--control", "3", "--node", "n1", "--json", str(folder / "r.json"))
    command = [*TOWPATH, "probe", "--kubeconfig", str(cluster.real.kubeconfig), *light, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    print(done.stdout)
    assert done.returncode in (0, 3, 6), done.stderr
    result: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return result
