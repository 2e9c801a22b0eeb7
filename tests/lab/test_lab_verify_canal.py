"""``towpath verify --expect`` and the operator's own four commands, on a cluster that runs ``rke2-canal``."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, get

from towpath.catalogue import load
from towpath.lab import canal
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

OLD, NEW = "v1.32.1+rke2r1", "v1.32.2+rke2r1"
DAEMONSET = ("daemonset", "-n", "kube-system", "rke2-canal")


def apply(kubectl: Kubectl, release: str) -> None:
    made = canal.objects(load.builtin(), release, strategy="OnDelete")
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))


def roll(kubectl: Kubectl, *pods: str) -> None:
    kubectl("delete", "pod", "-n", "kube-system", "--wait=true", *pods)
    eventually(lambda: get(kubectl, *DAEMONSET)["status"]["numberReady"] == 3)


@pytest.fixture
def rke2_canal(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    apply(kubectl, OLD)
    eventually(lambda: get(kubectl, *DAEMONSET)["status"].get("numberReady") == 3)
    yield
    kubectl("delete", *DAEMONSET, "--wait=true")
    eventually(lambda: not get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"])


def verify(lab: LabClient, *arguments: str) -> tuple[int, str]:
    command = [*TOWPATH, "verify", "--kubeconfig", lab.kubeconfig, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.usefixtures("rke2_canal")
def test_one_stale_node_is_enough(lab: LabClient, kubectl: Kubectl) -> None:
    assert verify(lab, "--expect", OLD)[0] == 0
    apply(kubectl, NEW)
    pods = {
        pod["spec"]["nodeName"]: pod["metadata"]["name"]
        for pod in get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    }
    roll(kubectl, pods["n1"], pods["n2"])

    code, told = verify(lab, "--expect", NEW)
    assert code == 3, told
    assert (
        f"Pod/kube-system/{pods['n3']} on n3: kube-flannel runs hardened-flannel:v0.26.3-build20250108"
        in told
    )
    assert "on n1" not in told and "on n2" not in told

    roll(kubectl, pods["n3"])
    code, told = verify(lab, "--expect", NEW)
    assert code == 0, told


@pytest.mark.usefixtures("rke2_canal")
def test_the_commands_of_canals_instructions(lab: LabClient, kubectl: Kubectl) -> None:
    """../shared/mission.md, row 11: they show what is there; what runs is verify's to say."""
    line = kubectl("get", "daemonset", "-n", "kube-system", "rke2-canal").splitlines()[1].split()
    assert line[:6] == ["rke2-canal", "3", "3", "3", "3", "3"]
    images = {"hardened-calico:v3.29.1-build20250110", "hardened-flannel:v0.26.3-build20250108"}

    def listed() -> bool:
        nodes = kubectl("get", "node", "-o", "yaml")
        return all(image in nodes for image in images)

    eventually(listed)


def test_an_expectation_that_is_none(lab: LabClient) -> None:
    code, told = verify(lab, "--expect", "v1.32.99+rke2r1")
    assert (code, "of that minor there are" in told) == (2, True), told
    code, told = verify(lab, "--expect", "latest")
    assert (code, "is not an RKE2 release" in told) == (2, True), told
    assert verify(lab, "--expect", "v0.1.0")[0] == 0
    code, told = verify(lab, "--expect", NEW)
    assert (code, "TP7106" in told) == (3, True), told
