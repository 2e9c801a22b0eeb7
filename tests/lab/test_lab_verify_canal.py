"""``towpath verify --expect`` and the operator's own four commands, on a cluster that runs ``rke2-canal``."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, get

from towpath.catalogue import load
from towpath.lab import canal
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

# Those that need a look at the nodes; the lab's have Towpath beside the stand-in, and are in order.
OF_NODES = (10, 11, 12, 13, 14, 20, 21, 23, 24, 28)
OLD, NEW, LATER = "v1.32.1+rke2r1", "v1.32.2+rke2r1", "v1.32.4+rke2r1"
DAEMONSET = ("daemonset", "-n", "kube-system", "rke2-canal")


def apply(kubectl: Kubectl, release: str) -> None:
    made = canal.objects(load.builtin(), release, strategy="OnDelete")
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))


def roll(kubectl: Kubectl, *pods: str) -> None:
    kubectl("delete", "pod", "-n", "kube-system", "--wait=true", *pods)
    eventually(lambda: all_ready(kubectl))


def all_ready(kubectl: Kubectl) -> bool:
    """By the pods, and by the DaemonSet, whose count may for a moment still be of those that are gone."""
    pods = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    ready = [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]
    counted: int = get(kubectl, *DAEMONSET)["status"].get("numberReady", 0)
    return len(pods) == len(ready) == counted == 3


@pytest.fixture
def rke2_canal(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    apply(kubectl, OLD)
    eventually(lambda: get(kubectl, *DAEMONSET)["status"].get("numberReady") == 3)
    yield
    kubectl("delete", *DAEMONSET, "--wait=true")
    eventually(lambda: not get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"])


def verify(lab: LabClient, *arguments: str) -> tuple[int, str]:
    command = [*TOWPATH, "verify", "--kubeconfig", lab.kubeconfig, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def in_order(lab: LabClient, *arguments: str) -> None:
    """Once it is: it looks at the whole lab, of which a node may be busy or a pod have only just begun."""
    told = ""

    def well() -> bool:
        nonlocal told
        code, told = verify(lab, *arguments)
        return code == 0

    try:
        eventually(well)
    except AssertionError as error:
        raise AssertionError(told) from error


@pytest.mark.usefixtures("rke2_canal")
def test_one_stale_node_is_enough(lab: LabClient, kubectl: Kubectl) -> None:
    in_order(lab, "--expect", OLD)
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
    # Of Canal's own pods: the lab's agents run beside them, and may have had something to say before.
    assert set(re.findall(r"Pod/kube-system/rke2-canal-\S+ on (n\d)", told)) == {"n3"}, told
    assert verify(lab, "--expect", OLD, "--read-nodes", "--churn", "0.2")[0] == 3

    roll(kubectl, pods["n3"])
    in_order(lab, "--expect", NEW, "--read-nodes", "--churn", "0.2")


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
    in_order(lab, "--expect", "v0.1.0")
    code, told = verify(lab, "--expect", NEW)
    assert (code, "TP7506" in told) == (3, True), told


def definition(plural: str, kind: str) -> dict[str, Any]:
    """One of helm-controller's own kinds."""
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.helm.cattle.io"},
        "spec": {
            "group": "helm.cattle.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }


@pytest.fixture
def helm(kubectl: Kubectl) -> Iterator[None]:
    """The chart as RKE2 has it in the API, with a pin that was forgotten."""
    kinds = [definition("helmcharts", "HelmChart"), definition("helmchartconfigs", "HelmChartConfig")]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds}))
    for one in kinds:
        kubectl("wait", "--for=condition=Established", f"crd/{one['metadata']['name']}", "--timeout=240s")
    where = {"name": "rke2-canal", "namespace": "kube-system"}
    pin = "flannel:\n  image:\n    repository: rancher/hardened-flannel\n    tag: v0.26.3-build20250108\n"
    made = [
        {"kind": "HelmChart", "spec": {"version": "v3.29.1-build2025011000"}},
        {"kind": "HelmChartConfig", "spec": {"valuesContent": pin}},
    ]
    objects = [{"apiVersion": "helm.cattle.io/v1", "metadata": where, **one} for one in made]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    yield
    for one in kinds:
        kubectl("delete", "crd", one["metadata"]["name"], "--timeout=240s")


@pytest.mark.usefixtures("rke2_canal", "helm")
def test_preflight_live_and_from_a_file(lab: LabClient, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [*TOWPATH, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout

    look = ("--read-nodes", "--churn", "0.2")
    way = ("--from", OLD, "--to", LATER, "-o", "json")
    live = filed = ""

    def the_same() -> bool:
        """Unless something happened on a node between the two looks."""
        nonlocal live, filed
        code, inventory = run("inventory", "--kubeconfig", lab.kubeconfig, *look, "-o", "json")
        assert code == 0
        (tmp_path / "cluster.json").write_text(inventory)
        code, live = run("preflight", "--kubeconfig", lab.kubeconfig, *look, *way)
        again, filed = run("preflight", "-f", str(tmp_path / "cluster.json"), *way)
        assert code == again == 3
        return live == filed

    try:
        eventually(the_same)
    except AssertionError as error:
        raise AssertionError(f"{live}\n\n{filed}") from error
    found = {check["number"]: check for check in json.loads(live)["checks"]}
    assert [f["code"] for f in found[6]["findings"]] == ["TP7307"]
    assert [f["code"] for f in found[7]["findings"]] == ["TP7308"]
    assert {f["object"] for f in found[9]["findings"]} == {
        f"Image/{name}:{load.builtin().release(LATER).images[name]}"
        for name in ("hardened-calico", "hardened-flannel")
    }
    assert [found[n]["state"] for n in (2, 3, 5, 27, *OF_NODES)] == ["ok"] * 14, live
    assert found[8]["state"] == "untold"
