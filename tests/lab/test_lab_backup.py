"""Policies saved before an upgrade that deletes their kind, and brought back after it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, get
from msgspec.structs import replace

from towpath.backup.archive import pack, unpack
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

GROUP, SPACE = "policy.networking.k8s.io", "saved"
PLURAL = f"adminnetworkpolicies.{GROUP}"


def definition() -> dict[str, Any]:
    """What chart rke2-canal 3.32.0 drops."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "adminnetworkpolicies", "singular": "adminnetworkpolicy", "kind": "AdminNetworkPolicy"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": PLURAL, "annotations": {"api-approved.kubernetes.io": "unapproved, test"}},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


def admin_policy() -> dict[str, Any]:
    subject = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}}}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "fence", "labels": {"team": "platform"}},
        "spec": {
            "priority": 10,
            "subject": subject,
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }


def network_policy() -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "front", "namespace": SPACE},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
    }


@pytest.fixture(autouse=True)
def policies(kubectl: Kubectl) -> Iterator[None]:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    kubectl("apply", "-f", "-", stdin=json.dumps(definition()))
    kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}", "--timeout=240s")
    for raw in (space, network_policy(), admin_policy()):
        kubectl("apply", "-f", "-", stdin=json.dumps(raw))
    yield
    kubectl("delete", "namespace", SPACE, "--ignore-not-found", "--timeout=240s")
    kubectl("delete", "crd", PLURAL, "--ignore-not-found", "--timeout=240s")


def towpath(lab: LabClient, *arguments: str) -> tuple[int, str]:
    command = [*TOWPATH, arguments[0], "--kubeconfig", lab.kubeconfig, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_dropped_kind_comes_back_with_its_objects(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    file = str(tmp_path / "before.tgz")
    before = get(kubectl, PLURAL, "fence")
    assert towpath(lab, "backup", file)[0] == 0
    assert Path(file).stat().st_mode & 0o077 == 0

    kubectl("delete", "crd", PLURAL)
    kubectl("delete", "networkpolicy", "-n", SPACE, "front")
    code, told = towpath(lab, "restore", file, "--dry-run")
    assert (code, "create   AdminNetworkPolicy/fence" in told) == (3, True), told

    code, told = towpath(lab, "restore", file)
    assert code == 0, told
    after = get(kubectl, PLURAL, "fence")
    assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], before["metadata"]["labels"])
    assert get(kubectl, "networkpolicy", "-n", SPACE, "front")["spec"]["ingress"]
    assert towpath(lab, "restore", file, "--dry-run")[0] == 0


def test_parts_and_other_clusters(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    file = tmp_path / "parts.tgz"
    assert towpath(lab, "backup", str(file))[0] == 0
    code, told = towpath(lab, "backup", str(file))
    assert (code, "is there already" in told) == (7, True), told
    kubectl("delete", "networkpolicy", "-n", SPACE, "front")
    kubectl("delete", PLURAL, "fence")
    code, told = towpath(lab, "restore", str(file), "--only", "networkpolicies", "-n", SPACE)
    assert (code, "1 written" in told) == (0, True), told
    assert not get(kubectl, PLURAL)["items"]

    stranger = tmp_path / "stranger.tgz"
    known = unpack(file.read_bytes())
    stranger.write_bytes(pack(replace(known, manifest=replace(known.manifest, cluster="another"))))
    code, told = towpath(lab, "restore", str(stranger))
    assert (code, "is not of this cluster" in told) == (7, True), told
    assert towpath(lab, "restore", str(stranger), "--other-cluster")[0] == 0
    eventually(lambda: get(kubectl, PLURAL)["items"])


def test_what_nodes_hold_is_kept_and_never_brought_back(
    lab: LabClient, kubectl: Kubectl, tmp_path: Path
) -> None:
    file = tmp_path / "nodes.tgz"
    code, told = towpath(lab, "backup", str(file), "--read-nodes")
    assert code == 0, told
    states = {
        one.object["metadata"]["name"]: one.object["report"]["kept"]
        for one in unpack(file.read_bytes()).objects
        if one.entry.section == "node-state"
    }
    assert set(states) == {node["metadata"]["name"] for node in get(kubectl, "nodes")["items"]}
    for kept in states.values():
        assert "table inet towpath" in kept["nft"]
        assert any("flannel.1" in route for route in kept["routes"])
        assert kept["fdb"]
    code, told = towpath(lab, "restore", str(file), "--only", "node-state")
    assert (code, "nothing in the archive is 'node-state'" in told) == (2, True), told


def test_a_full_disk_leaves_no_half_archive(lab: LabClient) -> None:
    code, told = towpath(lab, "backup", "/dev/full/x.tgz")
    assert (code, "cannot be written" in told) == (7, True), told
