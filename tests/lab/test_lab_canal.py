"""``towpath lab up --cni canal``: what docs/guides/migrate-from-canal.md says, step by step, in a lab."""

import json
from pathlib import Path
from typing import Any

import pytest
from lab_objects import Kubectl, deployment, eventually, failures, get, lab_with_pods, towpath

from towpath.install.migration import without_taken
from towpath.lab.canal import NAME
from towpath.lab.client import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("runtime_dir")]
GUIDE = Path(__file__).parents[2] / "docs/guides/migrate-from-canal.md"
PATCH = {"spec": {"template": {"spec": {"affinity": without_taken()}}}}


def test_a_node_goes_over_and_back_as_the_guide_has_it() -> None:
    with lab_with_pods("migrated", "--nodes", "2", "--cni", "canal") as (client, kubectl, before):
        assert wires(client) == ["10-canal.conflist"]
        eventually(lambda: not failures(client, before), 60)
        kubectl("patch", "ds", NAME, "-n", "kube-system", "--type", "merge", "-p", json.dumps(PATCH))
        kubectl("rollout", "status", "-n", "kube-system", f"ds/{NAME}", "--timeout=120s")
        kubectl("label", "node", "n1", "towpath.dev/network=takeover")
        eventually(lambda: networks(kubectl, "n1") == {NAME, "towpath"}, 120)

        said = migrate(client, "takeover")
        assert "this node and its pods are Towpath's" in said
        assert networks(kubectl, "n1") == {"towpath"}
        assert networks(kubectl, "n2") == {NAME}
        assert wires(client) == ["10-towpath.conflist"]
        assert_same(client, kubectl, before)
        kubectl("apply", "-f", "-", stdin=deployment("more", 2))
        kubectl("rollout", "status", "deployment/more", "--timeout=120s")
        assert_same(client, kubectl, before)

        said = migrate(client, "handback")
        assert "this node and its pods are Canal's" in said
        assert wires(client) == ["10-canal.conflist"]
        assert "inet towpath\n" not in on(client, "n1", "nft", "list", "tables")
        eventually(lambda: networks(kubectl, "n1") == {NAME}, 120)
        assert_same(client, kubectl, before)
        kubectl("scale", "deployment/more", "--replicas=4")
        kubectl("rollout", "status", "deployment/more", "--timeout=120s")
        assert_same(client, kubectl, before)


def test_the_guide_says_the_same() -> None:
    text = GUIDE.read_text()
    assert "".join(json.dumps(PATCH).split()) in "".join(text.split())
    assert "towpath lab up --cni canal" in text


def migrate(client: LabClient, direction: str) -> str:
    """What the guide's Job does, on n1."""
    command = ("towpath", "node", direction, "--config", "/etc/towpath/agent.yaml", "--patience", "180")
    return on(client, "n1", *command)


def on(client: LabClient, node: str, *command: str) -> str:
    return towpath("exec", "--name", client.name, node, "--", *command, timeout=400).stdout


def wires(client: LabClient) -> list[str]:
    """The CNI configurations that n1's runtime could load; the first is in force."""
    return sorted(n for n in on(client, "n1", "ls", "/etc/cni/net.d").split() if n.endswith(".conflist"))


def networks(kubectl: Kubectl, node: str) -> set[str]:
    """Whose pods run on a node."""
    items = get(kubectl, "pods", "-n", "kube-system", "--field-selector", f"spec.nodeName={node}")["items"]
    return {item["metadata"]["ownerReferences"][0]["name"] for item in items}


def assert_same(client: LabClient, kubectl: Kubectl, before: list[dict[str, Any]]) -> None:
    """The first pods have their addresses, were not restarted, and everybody reaches everybody."""
    pods = get(kubectl, "pods", "-l", "app in (echo, more)")["items"]
    now = {pod["metadata"]["uid"]: pod for pod in pods}
    for pod in before:
        same = now[pod["metadata"]["uid"]]
        assert same["status"]["podIPs"] == pod["status"]["podIPs"]
        assert not any(status["restartCount"] for status in same["status"]["containerStatuses"])
    addresses = [entry["ip"] for pod in pods for entry in pod["status"]["podIPs"]]
    assert len(set(addresses)) == len(addresses) == 2 * len(pods)
    assert failures(client, before) == []
    # Canal's own pods answer on IPv6 once duplicate address detection on their links has ended.
    eventually(lambda: not failures(client, pods), 60)
