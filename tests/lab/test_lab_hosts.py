"""Host endpoints on a cluster's nodes: kubectl's apply, the real agents, and what then reaches a node."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab_objects import Kubectl, eventually, get, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

GROUP = "crd.projectcalico.org"
KINDS = {"hostendpoints": "HostEndpoint", "globalnetworkpolicies": "GlobalNetworkPolicy"}
PORTS = (7080, 7090)
SPACE = "guarded"
OPEN, SHUT = [True, True], [False, False]


@pytest.fixture(autouse=True)
def space(kubectl: Kubectl) -> Iterator[None]:
    """Servers on a node's own network and on a pod's."""
    objects: list[dict[str, Any]] = [definition(plural, kind) for plural, kind in KINDS.items()]
    objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    objects += [server("host", hostNetwork=True), server("pod")]
    apply(kubectl, *objects)
    for plural in KINDS:
        kubectl("wait", "--for=condition=Established", f"crd/{plural}.{GROUP}", "--timeout=240s")
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod", "--all", "--timeout=240s")
    yield
    kubectl("delete", "crd", *(f"{plural}.{GROUP}" for plural in KINDS), "--timeout=240s")
    kubectl("delete", "namespace", SPACE, "--timeout=240s")


def apply(kubectl: Kubectl, *objects: dict[str, Any]) -> None:
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def definition(plural: str, kind: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def server(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "towpath/echo:1", "ports": [{"containerPort": p} for p in PORTS]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"nodeName": "n2", "terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def calico(kind: str, name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels or {}}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def reaches(lab: LabClient, kubectl: Kubectl, name: str, port: int, source: str = "n1") -> list[bool]:
    """From a node, over both families."""
    ips = get(kubectl, "pod", "-n", SPACE, name)["status"]["podIPs"]
    to = [{"addr": ip["ip"], "port": port, "proto": "tcp"} for ip in ips]
    (result,) = lab.call("run-in", probes=[{"from": {"node": source}, "to": to}], timeout=0.5)
    return [bool(t["ok"]) for t in result["to"]]


def test_a_nodes_host_endpoint_guards_it_and_leaves_it_in_the_cluster(
    lab: LabClient, kubectl: Kubectl
) -> None:
    eventually(
        lambda: reaches(lab, kubectl, "host", PORTS[0]) == reaches(lab, kubectl, "host", PORTS[1]) == OPEN
    )
    rule = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [PORTS[0]]}}
    guard = calico(
        "GlobalNetworkPolicy",
        "guard",
        selector="role == 'guarded'",
        types=["Ingress", "Egress"],
        ingress=[rule],
        egress=[{"action": "Allow"}],
    )
    apply(
        kubectl,
        guard,
        calico("HostEndpoint", "n2-all", {"role": "guarded"}, node="n2", interfaceName="*"),
        calico("HostEndpoint", "n9-all", node="n9", interfaceName="*"),
    )
    # Kinds that were not there when the agents started are noticed within half a minute.
    eventually(lambda: reaches(lab, kubectl, "host", PORTS[1]) == SHUT, pause=1)
    eventually(lambda: reaches(lab, kubectl, "host", PORTS[0]) == OPEN)
    # Its pods are pods as before, for others and for itself; it sends, and its agent still hears of changes.
    eventually(lambda: reaches(lab, kubectl, "pod", PORTS[1]) == OPEN)
    eventually(lambda: reaches(lab, kubectl, "pod", PORTS[1], "n2") == OPEN)
    rule["destination"] = {"ports": [PORTS[1]]}
    apply(kubectl, guard)
    eventually(lambda: reaches(lab, kubectl, "host", PORTS[1]) == OPEN)
    assert reaches(lab, kubectl, "host", PORTS[0]) == SHUT
    chains = towpath("exec", "--name", lab.name, "n1", "--", "nft", "list", "table", "inet", "towpath").stdout
    assert "host_in" not in chains  # another node's business
    # What passes through is judged where it says so.
    passing = {"action": "Allow", "protocol": "TCP", "destination": {"ports": [PORTS[0]]}}
    spec: dict[str, Any] = {"applyOnForward": True, "types": ["Ingress"], "ingress": [passing]}
    apply(kubectl, calico("GlobalNetworkPolicy", "guard", selector="role == 'guarded'", **spec))
    eventually(lambda: reaches(lab, kubectl, "pod", PORTS[1]) == SHUT)
    eventually(lambda: reaches(lab, kubectl, "pod", PORTS[0]) == OPEN)
    kubectl("delete", "hostendpoint", "n2-all", "--timeout=240s")
    eventually(lambda: reaches(lab, kubectl, "host", PORTS[0]) == OPEN)
    eventually(lambda: reaches(lab, kubectl, "pod", PORTS[1]) == OPEN)
