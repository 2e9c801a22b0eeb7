"""``towpath policy log`` in a whole cluster: what agents hear of the kernel, by way of their pods' logs."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, get

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab
SPACE = "logged"


@pytest.fixture(scope="module", autouse=True)
def pods(kubectl: Kubectl) -> Iterator[None]:
    kubectl("create", "namespace", SPACE)
    for name, node in (("server", "n1"), ("client", "n2")):
        container = {"name": "main", "image": "towpath/echo:1", "ports": [{"containerPort": 8080}]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": SPACE, "labels": {"app": name}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
        }
        kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod", "--all", "--timeout=240s")
    kubectl("apply", "-f", "-", stdin=json.dumps(POLICY))
    yield
    kubectl("delete", "namespace", SPACE, "--timeout=240s")


POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "shut", "namespace": SPACE},
    "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
}


def knock(lab: LabClient, kubectl: Kubectl) -> bool:
    """One connection over IPv4 to the server; whether it came about."""
    ip = get(kubectl, "pod", "-n", SPACE, "server")["status"]["podIP"]
    to = [{"addr": ip, "port": 8080, "proto": "tcp"}]
    (result,) = lab.call("run-in", probes=[{"from": {"pod": f"{SPACE}/client"}, "to": to}], timeout=0.3)
    return bool(result["to"][0]["ok"])


def log_of(lab: LabClient, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TOWPATH, "policy", "log", "--kubeconfig", lab.kubeconfig, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def denials(lab: LabClient, *arguments: str) -> list[dict[str, Any]]:
    done = log_of(lab, "-n", SPACE, "-o", "json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_denied_packet_is_told_with_pods_and_policy(lab: LabClient, kubectl: Kubectl) -> None:
    eventually(lambda: not knock(lab, kubectl))

    def told() -> dict[str, Any] | None:
        """A denial with both names: those of new pods may be missing from the first lines."""
        knock(lab, kubectl)
        both = [one for one in denials(lab) if one["source"].get("object")]
        return both[-1] if both and both[-1]["destination"].get("object") else None

    one = eventually(told, pause=0.3)
    assert (one["node"], one["action"], one["direction"], one["protocol"]) == ("n1", "deny", "ingress", "tcp")
    assert one["source"]["object"] == f"Pod/{SPACE}/client"
    assert (one["destination"]["object"], one["destination"]["port"]) == (f"Pod/{SPACE}/server", 8080)
    assert (one["tier"], one["policies"]) == ("default", [f"NetworkPolicy/{SPACE}/shut"])
    assert denials(lab, "--node", "n1") and not denials(lab, "--node", "n3")
    assert denials(lab, "--pod", f"{SPACE}/server") and not denials(lab, "--pod", f"{SPACE}/other")
    assert not denials(lab, "--action", "log")
    text = log_of(lab, "-n", SPACE).stdout
    assert "default of tier default (in force: NetworkPolicy/logged/shut)" in text.splitlines()[-1]


def test_following_goes_on_when_an_agent_is_killed(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    command = [*TOWPATH, "policy", "log", "--kubeconfig", lab.kubeconfig, "--follow", "-o", "jsonl"]
    told = tmp_path / "told"

    def ports() -> set[int]:
        """Of connections to the server that were told; one more is tried."""
        knock(lab, kubectl)
        whole, _, _ = told.read_text().rpartition("\n")
        records = map(json.loads, whole.splitlines())
        server = f"Pod/{SPACE}/server"
        return {one["source"]["port"] for one in records if one["destination"].get("object") == server}

    with told.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as following:
        try:
            first = eventually(ports, pause=0.5)
            lab.call("kill-agent", node="n1")
            # Until the next agent listens, nothing is told.
            eventually(lambda: ports() - first, pause=0.5)
        finally:
            following.send_signal(signal.SIGINT)
            try:
                following.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                following.kill()
    assert following.returncode == 130


def test_no_agents_where_they_are_looked_for(lab: LabClient) -> None:
    done = log_of(lab, "--agent-namespace", "default")
    assert done.returncode == 7 and "--agent-namespace" in done.stderr
