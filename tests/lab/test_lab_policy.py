"""Policies decide, on the real kernel, from kubectl's apply to the packet."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, get, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

SPACE = "walled"
PORTS = (8080, 9090)


@pytest.fixture(autouse=True)
def space(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    """Three pods: the server and one client on a node, another client elsewhere."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": {"team": "red"}}}
    ]
    objects += [pod("server", "n1"), pod("near", "n1"), pod("far", "n2")]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod", "--all", "--timeout=240s")
    yield
    kubectl("delete", "namespace", SPACE, "--timeout=240s")


def pod(name: str, node: str) -> dict[str, Any]:
    container = {"name": "main", "image": "towpath/echo:1", "ports": [{"containerPort": p} for p in PORTS]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def policy(name: str, **spec: Any) -> str:
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, **spec},
    }
    return json.dumps(body)


def reaches(lab: LabClient, kubectl: Kubectl, who: str, port: int = 8080) -> list[bool]:
    """IPv4 and IPv6, TCP, to the server."""
    ips = get(kubectl, "pod", "-n", SPACE, "server")["status"]["podIPs"]
    to = [{"addr": ip["ip"], "port": port, "proto": "tcp"} for ip in ips]
    (result,) = lab.call("run-in", probes=[{"from": {"pod": f"{SPACE}/{who}"}, "to": to}], timeout=0.5)
    return [bool(t["ok"]) for t in result["to"]]


OPEN, SHUT = [True, True], [False, False]


def test_deny_then_allow_by_label_and_port(lab: LabClient, kubectl: Kubectl) -> None:
    eventually(lambda: reaches(lab, kubectl, "near") == reaches(lab, kubectl, "far") == OPEN)
    kubectl("apply", "-f", "-", stdin=policy("only"))
    eventually(lambda: reaches(lab, kubectl, "near") == reaches(lab, kubectl, "far") == SHUT)

    peer = {"podSelector": {"matchLabels": {"role": "friend"}}}
    allowed = policy("only", ingress=[{"from": [peer], "ports": [{"port": 8080}]}])
    kubectl("apply", "-f", "-", stdin=allowed)
    kubectl("label", "-n", SPACE, "pod", "far", "role=friend")
    eventually(lambda: reaches(lab, kubectl, "far") == OPEN)
    assert reaches(lab, kubectl, "near") == reaches(lab, kubectl, "far", 9090) == SHUT
    kubectl("label", "-n", SPACE, "pod", "far", "role-")
    eventually(lambda: reaches(lab, kubectl, "far") == SHUT)

    kubectl("delete", "networkpolicy", "-n", SPACE, "only")
    eventually(lambda: reaches(lab, kubectl, "near") == reaches(lab, kubectl, "far") == OPEN)


def test_a_new_pod_is_never_open(lab: LabClient, kubectl: Kubectl) -> None:
    """Ready means that its policy is in force; the agent's restart changes nothing."""
    kubectl("apply", "-f", "-", stdin=policy("only"))
    eventually(lambda: reaches(lab, kubectl, "far") == SHUT)
    kubectl("delete", "pod", "-n", SPACE, "server", "--timeout=240s")
    kubectl("apply", "-f", "-", stdin=json.dumps(pod("server", "n1")))
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod", "server", "--timeout=240s")
    assert reaches(lab, kubectl, "near") == reaches(lab, kubectl, "far") == SHUT
    towpath("kill-agent", "--name", lab.name, "n1")
    assert reaches(lab, kubectl, "near") == SHUT


def test_what_cannot_be_read_denies_and_is_told(lab: LabClient, kubectl: Kubectl) -> None:
    """Calico's policies come as custom resources, which no API server checks."""
    kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    kubectl("wait", "--for=condition=Established", f"crd/{DEFINITION['metadata']['name']}", "--timeout=240s")
    rule = {"action": "Allow", "source": {"nets": ["10.42.0.0/16", "10.42.0.999/32"]}}
    body = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "broken", "namespace": SPACE},
        "spec": {"selector": "app == 'server'", "types": ["Ingress"], "ingress": [rule]},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    # A kind that was not there when the agent started is noticed within half a minute.
    eventually(lambda: reaches(lab, kubectl, "near") == SHUT, pause=1)
    eventually(lambda: "10.42.0.999/32" in status(lab), pause=0.5)
    (event,) = eventually(lambda: events(kubectl), pause=0.5)
    assert event["involvedObject"]["name"] == "broken"
    told = kubectl("get", "events", "-n", SPACE, "--field-selector", "reason=TP5001")
    for part in ("Warning", "networkpolicy/broken", "spec.ingress[0].source.nets[1]: '10.42.0.999/32' is no"):
        assert part in told
    rule["source"] = {"nets": ["10.42.0.0/16"]}
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    eventually(lambda: reaches(lab, kubectl, "near") == [True, False])
    kubectl("delete", "crd", str(DEFINITION["metadata"]["name"]), "--timeout=240s")


def events(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Of the cluster's nodes, one tells of a finding."""
    found = get(kubectl, "events", "-n", SPACE, "--field-selector", "reason=TP5001")["items"]
    assert len(found) < 2
    return list(found)


def test_a_denial_is_explained_down_to_a_counter_that_rises(lab: LabClient, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=policy("only"))
    eventually(lambda: reaches(lab, kubectl, "far") == SHUT)
    before = explained(lab)
    assert not before["allowed"]
    (ingress,) = [side for side in before["flows"][0]["sides"] if side["direction"] == "ingress"]
    kernel = ingress["kernel"]
    assert (kernel["node"], kernel["allowed"], kernel["problem"]) == ("n1", False, "")
    assert reaches(lab, kubectl, "far") == SHUT
    assert counted(explained(lab)) > counted(before) > 0
    for name in ("n1", "n2"):  # nothing of the question stays
        notes = get(kubectl, "node", name)["metadata"]["annotations"]
        assert not any(key.startswith("towpath.dev/policy") for key in notes)
    page = towpath(
        *("exec", "--name", lab.name, "n1", "--", sys.executable, "-c", PAGE),
        before["flows"][0]["addresses"][0]["from"],
        before["flows"][0]["addresses"][0]["to"],
    )
    assert "counter goto denied" in page.stdout


PAGE = """
import sys, urllib.request
url = "http://127.0.0.1:9109/policy?from=%s&to=%s&port=8080" % tuple(sys.argv[1:])
print(urllib.request.urlopen(url).read().decode())
"""


def explained(lab: LabClient) -> Any:
    """What ``policy explain`` says of far and server, both families in one if they are alike."""
    command = [*TOWPATH, "policy", "explain", f"{SPACE}/far", f"{SPACE}/server", "--port", "8080"]
    command += ["-o", "json", "--kubeconfig", lab.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout)


def counted(explanation: Any) -> int:
    """Packets at what decided on the server's side."""
    (side,) = [side for side in explanation["flows"][0]["sides"] if side["direction"] == "ingress"]
    return int(side["kernel"]["hits"][-1]["packets"])


DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "networkpolicies.crd.projectcalico.org"},
    "spec": {
        "group": "crd.projectcalico.org",
        "scope": "Namespaced",
        "names": {"kind": "NetworkPolicy", "plural": "networkpolicies", "singular": "networkpolicy"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


def status(lab: LabClient) -> str:
    """What `towpath status` says of the shared lab."""
    command = [*TOWPATH, "status", "--kubeconfig", lab.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
