"""Pods with a second network in the lab: real agents and kubelets, Debian's plugins, packets across nodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_objects import Kubectl, eventually, get, pod, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

CRDS = Path(__file__).parents[2] / "demo/crds.yaml"
KIND = "network-attachment-definitions.k8s.cni.cncf.io"


def definition(name: str, config: dict[str, Any]) -> dict[str, Any]:
    spec = {"config": json.dumps({"cniVersion": "1.0.0", **config})}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture
def networks(kubectl: Kubectl) -> Iterator[None]:
    """``flat`` across the nodes, ``local`` on each node by Debian's plugins."""
    documents = yaml.safe_load_all(CRDS.read_text())
    crd = next(one for one in documents if one["metadata"]["name"] == KIND)
    kubectl("apply", "-f", "-", stdin=json.dumps(crd))
    kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=20s")
    flat = definition("flat", {"type": "macvlan", "mtu": 1400, "ipam": {"type": "static"}})
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]}
    local = definition("local", {"type": "bridge", "bridge": "br77", "isGateway": True, "ipam": ipam})
    kubectl(
        "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [flat, local]})
    )
    yield
    kubectl("delete", "crd", KIND)


def asking(name: str, node: str, last: int) -> str:
    flat = {"name": "flat", "ips": [f"192.168.88.{last}/24", f"fd88::{last}/64"]}
    asked = json.dumps([flat, {"name": "local", "interface": "data0"}, {"name": "local"}])
    return pod(name, node, {"k8s.v1.cni.cncf.io/networks": asked}, ports=[{"containerPort": 8080}])


def leases(node: str) -> list[str]:
    """Addresses that host-local has given out."""
    found = towpath(
        "exec", "--name", "shared", node, "--", "sh", "-c", "ls /var/lib/cni/networks/local || true"
    )
    return [name for name in found.stdout.split() if name[0].isdigit()]


@pytest.mark.usefixtures("networks")
def test_a_second_network_across_nodes(lab: LabClient, kubectl: Kubectl) -> None:
    for name, node, last in (("left", "n1", 1), ("right", "n2", 2)):
        kubectl("apply", "-f", "-", stdin=asking(name, node, last))
    kubectl("wait", "--for=condition=Ready", "pod/left", "pod/right", "--timeout=40s")
    to = [{"addr": a, "port": 8080, "proto": "tcp"} for a in ("192.168.88.2", "fd88::2")]
    question = [{"from": {"pod": "default/left"}, "to": to}]
    [answer] = lab.call("run-in", probes=question, timeout=5)
    assert all(one["ok"] for one in answer["to"]), answer
    status = json.loads(
        get(kubectl, "pod", "left")["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"]
    )
    assert [(one["name"], one["interface"], one["default"]) for one in status] == [
        ("towpath", "eth0", True),
        ("default/flat", "net1", False),
        ("default/local", "data0", False),
        ("default/local", "net3", False),
    ]
    assert status[1]["ips"] == ["192.168.88.1", "fd88::1"]
    assert len(leases("n1")) == 2

    # Neither the agent that attached it nor the definition is there when it is detached.
    lab.call("kill-agent", node="n1")
    kubectl("delete", KIND, "local", "flat")
    kubectl("delete", "pod", "left", "right", "--timeout=40s")
    eventually(lambda: not leases("n1") and not leases("n2"))
    eventually(
        lambda: get(kubectl, "daemonset", "-n", "kube-system", "towpath")["status"]["numberReady"] == 3
    )


@pytest.mark.usefixtures("networks")
def test_a_pod_whose_network_is_unknown_says_so_and_starts_when_it_comes(kubectl: Kubectl) -> None:
    annotations = {"k8s.v1.cni.cncf.io/networks": "later"}
    kubectl("apply", "-f", "-", stdin=pod("waiting", "n1", annotations))

    def told() -> bool:
        events = get(kubectl, "events", "--field-selector", "involvedObject.name=waiting")["items"]
        return any(event["reason"] == "TP6002" and "default/later" in event["message"] for event in events)

    eventually(told)
    kubectl("apply", "-f", "-", stdin=json.dumps(definition("later", {"type": "macvlan"})))
    kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=40s")
    kubectl("delete", "pod", "waiting", "--timeout=40s")
