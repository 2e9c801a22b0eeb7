"""A connection between pods, and an annotation: cut, from kubectl's apply to the reset."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lab_objects import Kubectl, eventually, get

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab
SPACE = "revoked"
# Writes a line for each answer, and one at the end.
TALK = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 8080), 60)
try:
    while True:
        s.send(b"x")
        if not s.recv(1):
            raise OSError("closed")
        print("answered", time.time(), flush=True)
        time.sleep(0.02)
except OSError as e:
    print("ended", time.time(), type(e).__name__, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module", autouse=True)
def server(kubectl: Kubectl) -> Iterator[None]:
    kubectl("create", "namespace", SPACE)
    kubectl("apply", "-f", "-", stdin=pod("server", "n1"))
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod", "server", "--timeout=240s")
    yield
    kubectl("delete", "namespace", SPACE, "--timeout=240s")


def pod(name: str, node: str, **container: Any) -> str:
    container = {"name": "main", "image": "towpath/echo:1", "ports": [{"containerPort": 8080}], **container}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    return json.dumps(body)


def policy(**annotations: str) -> str:
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "shut", "namespace": SPACE, "annotations": annotations},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
    }
    return json.dumps(body)


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_policy_cuts_a_connection(lab: LabClient, kubectl: Kubectl, node: str) -> None:
    ip = get(kubectl, "pod", "-n", SPACE, "server")["status"]["podIP"]
    client = f"client-{node}"
    kubectl("apply", "-f", "-", stdin=pod(client, node, ports=[], command=["python3", "-c", TALK, ip]))

    def said() -> list[list[str]]:
        return [line.split() for line in kubectl("logs", "-n", SPACE, client).splitlines()]

    kubectl("wait", "-n", SPACE, "--for=condition=Ready", f"pod/{client}", "--timeout=240s")
    eventually(lambda: len(said()) > 10)
    kubectl("apply", "-f", "-", stdin=policy())
    time.sleep(1.5)
    assert said()[-1][0] == "answered"  # flows survive, where nobody asks for more
    kubectl("apply", "-f", "-", stdin=policy(**{"towpath.dev/revocation": "enforce"}))
    ended = eventually(lambda: [line for line in said() if line[:1] == ["ended"] and len(line) == 3])[0]
    assert ended[2] == "ConnectionResetError"
    kubectl("delete", "-n", SPACE, "networkpolicy", "shut")
    kubectl("delete", "-n", SPACE, "pod", client, "--timeout=240s")
