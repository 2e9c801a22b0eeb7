"""What agents ask of the API server, recorded, is what an installation grants them: no less, and no more.

Last in the folder: by then the shared lab's agents have been through its tests.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_objects import Kubectl, eventually, pod, towpath
from lab_rights import asked, granted

from towpath.lab.client import LabClient
from towpath.policy.sources import SECONDARY, SERVED, SOURCES, STORED

pytestmark = pytest.mark.lab

SCHEMA = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}

# Asked for only when a watch is late, or an Event is told again: not at will, so each has a test of its own.
NETWORKS = "k8s.cni.cncf.io", "network-attachment-definitions"
SELDOM = {
    ("get", "", "pods"): "unit/test_agent_parts.py::test_directory_asks_only_when_it_must",
    ("get", *NETWORKS): "kernel/test_networks.py::test_two_networks_by_debians_plugins",
    ("patch", "", "events"): "unit/test_agent_policy_events.py::test_one_writes_and_renews",
}


def definitions(calico: str) -> list[dict[str, Any]]:
    """Of every kind that is no part of Kubernetes and that an agent follows where it is served."""
    left_out = {"networking.k8s.io", STORED, SERVED} - {calico}
    kinds = [(s.group, s.versions[0], s.plural, s.kind, s.namespaced) for s in (*SOURCES, SECONDARY)
             if s.group not in left_out]  # fmt: skip
    kinds.append(("k8s.cni.cncf.io", "v1", "network-attachment-definitions", "NetworkAttachmentDefinition",
                  True))  # fmt: skip
    kinds.append(("crd.projectcalico.org", "v1", "ipreservations", "IPReservation", False))
    return [_definition(*kind) for kind in dict.fromkeys(kinds)]


def _definition(group: str, version: str, plural: str, kind: str, namespaced: bool) -> dict[str, Any]:
    served = {"name": version, "served": True, "storage": True, "schema": SCHEMA}
    approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": approved},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{**served, "subresources": {"status": {}}}],
        },
    }


@contextlib.contextmanager
def cluster(folder: Path, calico: str) -> Iterator[Kubectl]:
    """A node, and every kind there is; Calico's in group ``calico``."""
    crds = folder / "crds.yaml"
    crds.write_text(yaml.safe_dump_all(definitions(calico)))
    towpath("up", "--name", "rights", "--nodes", "1", "--crds", str(crds))
    client = LabClient("rights")

    def kubectl(*arguments: str, stdin: str = "") -> str:
        environment = {**os.environ, "KUBECONFIG": client.kubeconfig}
        done = subprocess.run(["kubectl", *arguments], input=stdin, env=environment, capture_output=True,
                              text=True, timeout=300, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        yield kubectl
    finally:
        client.call("down")


STRANGE = """
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: strange}
spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Perhaps, from: [{namespaces: {}}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}, ingress: [{action: Perhaps, from: [{namespaces: {}}]}]}
---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: strange}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Perhaps, from: []}]}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: flat}
spec: {config: '{"cniVersion": "1.0.0", "type": "macvlan", "ipam": {"type": "static"}}'}
"""


@pytest.mark.parametrize(("calico", "other"), [(STORED, SERVED), (SERVED, STORED)])
def test_every_right_that_is_granted_is_used_and_nothing_else_is_asked_for(
    tmp_path: Path, runtime_dir: Path, calico: str, other: str
) -> None:
    wanted = {one for one in granted({}) - SELDOM.keys() if one[1] != other or one[2] == "ipreservations"}
    asking = {"k8s.v1.cni.cncf.io/networks": json.dumps([{"name": "flat", "ips": ["192.168.9.1/24"]}])}
    with cluster(tmp_path, calico) as kubectl:
        kubectl("apply", "-f", "-", stdin=STRANGE)
        kubectl("apply", "-f", "-", stdin=pod("asking", annotations=asking))
        with contextlib.suppress(AssertionError):
            eventually(lambda: not (wanted - asked(kubectl)), 120)
        assert wanted - asked(kubectl) == set()
        assert asked(kubectl) <= granted({})


def test_what_is_seldom_asked_for_has_a_test_of_its_own() -> None:
    for right, test in SELDOM.items():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text(), right


def test_after_all_tests_of_the_shared_lab_nothing_was_asked_for_that_is_not_granted(
    lab: LabClient, kubectl: Kubectl
) -> None:
    assert asked(kubectl) <= granted({})
