"""``towpath ipam`` in a running lab."""

import json
import subprocess
from pathlib import Path

import pytest
from lab_objects import TOWPATH, Kubectl, eventually

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


def test_every_node_tells_of_its_addresses(lab: LabClient) -> None:
    command = [*TOWPATH, "ipam", "show", "--kubeconfig", lab.kubeconfig, "-o", "json"]
    expected = [("IPv4", 253, "leases"), ("IPv6", (1 << 64) - 2, "leases")] * 3

    def shown() -> list[tuple[str, int, str]]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [(r["family"], r["size"], r["source"]) for r in json.loads(done.stdout)]

    eventually(lambda: shown() == expected)  # an agent that has not reported yet is not asked


def test_what_host_local_has_leaked(lab: LabClient) -> None:
    folder = "/var/lib/cni/networks/k8s-pod-network"
    on_node = [*TOWPATH, "lab", "exec", "--name", "shared", "n2", "--", "sh", "-c"]
    made = f"mkdir -p {folder} && printf 'dead\\r\\neth0' > {folder}/10.42.1.77"
    subprocess.run([*on_node, made], check=True, timeout=300)
    command = [*TOWPATH, "ipam", "check", "--read-nodes", "--node", "n2", "--kubeconfig", lab.kubeconfig]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, timeout=300, check=False)
    subprocess.run([*on_node, f"rm -r {folder}"], check=True, timeout=300)
    assert done.returncode == 3, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    told = [p["object"] for p in row["problems"] if p["code"] == "TP4020"]
    assert told == [f"{folder}/10.42.1.77"]


def test_to_reserve_takes_calicos_kind(lab: LabClient, kubectl: Kubectl) -> None:
    command = [*TOWPATH, "ipam", "reserve", "10.42.0.250", "--name", "x", "--kubeconfig", lab.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 7 and "kubectl apply -f manifests/ipreservations.yaml" in done.stderr
    kubectl("apply", "-f", str(Path(__file__).parents[2] / "manifests" / "ipreservations.yaml"))
    kubectl(
        "wait", "--for=condition=Established", "crd/ipreservations.crd.projectcalico.org", "--timeout=240s"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "10.42.0.250/32" in kubectl("get", "ipreservations", "x", "-o", "yaml")
    kubectl("delete", "crd", "ipreservations.crd.projectcalico.org")
