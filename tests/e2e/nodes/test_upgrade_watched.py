"""``towpath upgrade watch --job`` under a real Job controller and kubelet, with roles that are enforced."""

import subprocess
import sys

import pytest
import yaml
from installed import Installed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WATCH = (sys.executable, "-m", "towpath", "upgrade", "watch")
OWN = ("-n", "kube-system")
NAME = "towpath-watch"


def test_a_job_probes_and_reads_the_nodes_with_the_rights_it_names(cluster: Installed) -> None:
    real = cluster.real
    words = ("--job", "--image", cluster.values.image, "--for", "1s", "--every", "1s", "--probe-seconds", "5")
    printed = subprocess.run([*WATCH, *words], capture_output=True, text=True, check=True, timeout=60).stdout
    real.apply(list(yaml.safe_load_all(printed)))
    try:
        real.wait_until(lambda: ended(cluster), "the Job's end", 300)
        told = real.kubectl("logs", *OWN, f"job/{NAME}")
        status = real.get("job", NAME, *OWN)["status"]
    finally:
        everything = ("job", "serviceaccount", "role", "rolebinding")
        real.kubectl("delete", *OWN, *(f"{kind}/{NAME}" for kind in everything), "--ignore-not-found")
        real.kubectl("delete", f"clusterrole/{NAME}", f"clusterrolebinding/{NAME}", "--ignore-not-found")
    assert "1 looks" in told and " lost" in told, told
    left_out = [line for line in told.splitlines() if "left out" in line]
    assert all("processor and memory" in line for line in left_out), told  # nobody serves metrics here
    assert status.get("succeeded") == 1 or "findings" in told, told
    real.wait_until(lambda: not probing(cluster), "its probes' namespace gone", 300)


def ended(cluster: Installed) -> bool:
    """Whether the Job has come to its end, well or not."""
    status = cluster.real.get("job", NAME, *OWN).get("status") or {}
    return bool(status.get("succeeded") or status.get("failed"))


def probing(cluster: Installed) -> list[str]:
    """Namespaces of probes."""
    names = [one["metadata"]["name"] for one in cluster.real.get("namespaces")["items"]]
    return [name for name in names if name.startswith("towpath-probe")]
