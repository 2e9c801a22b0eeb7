"""An archive is proven: restored in a twin it is the same there; and the plan is tried in that twin."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_objects import TOWPATH, Kubectl, deployment, get
from lab_upgrade import NEW, QUICK, SKIP, Upgrade, stand_in

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

SPACE = "twinned"
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "only-front", "labels": {"team": "shop"}},
    "spec": {
        "podSelector": {"matchLabels": {"app": "back"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "front"}}}]}],
    },
}


@pytest.fixture
def upgrade(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> Iterator[Upgrade]:
    kubectl("create", "namespace", SPACE)
    for name in ("front", "back"):
        kubectl("apply", "-n", SPACE, "-f", "-", stdin=deployment(name, 2))
        kubectl("rollout", "status", "-n", SPACE, f"deployment/{name}", "--timeout=240s")
    kubectl("apply", "-n", SPACE, "-f", "-", stdin=json.dumps(POLICY))
    with stand_in(lab, kubectl, tmp_path) as command:
        yield command
    kubectl("delete", "namespace", SPACE, "--wait=false")


def test_from_archive_to_twin_and_the_same_again(
    upgrade: Upgrade, kubectl: Kubectl, lab: LabClient, tmp_path: Path
) -> None:
    """Policies, pods, labels, nodes and addresses are there again, and the plan comes to its end."""
    archive = tmp_path / "before.tgz"
    words = [*TOWPATH, "backup", str(archive), "--kubeconfig", lab.kubeconfig]
    assert subprocess.run(words, capture_output=True, check=False, timeout=300).returncode == 0
    code, told = upgrade.run("plan", "--to", NEW, "-f", str(upgrade.file), *QUICK, *SKIP)
    assert code == 0, told
    before = json.loads(upgrade.file.read_text())
    code, told = upgrade.run("rehearse", str(upgrade.file), "--from", str(archive))
    assert (code, "the plan came to its end" in told, "differs" in told) == (0, True, False), told
    after = json.loads(upgrade.file.read_text())
    seen = after["rehearsal"]
    pods = [pod for pod in get(kubectl, "pod", "-A")["items"] if not pod["spec"].get("hostNetwork")]
    assert (after["hash"], seen["plan"]) == (before["hash"], before["hash"])
    assert (seen["mode"], seen["nodes"], seen["pods"], seen.get("differs", [])) == ("done", 3, len(pods), [])
    assert "Carried out before in a twin" not in upgrade.file.with_suffix(".rehearsal.html").read_text()
    for spoilt, why in ((archive.read_bytes()[:300], "TP7201"), (b"{}", "is no inventory")):
        bad = tmp_path / "bad"
        bad.write_bytes(spoilt)
        code, told = upgrade.run("rehearse", str(upgrade.file), "--from", str(bad))
        assert (code, why in told) == (2, True), told
