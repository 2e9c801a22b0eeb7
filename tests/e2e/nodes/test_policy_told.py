"""What the operator is told under a real API server: Events, and what implements a denial in the kernel."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest
from installed import PORT, Installed, addresses

pytestmark = pytest.mark.e2e

CALICO = "crd.projectcalico.org"
SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition() -> dict[str, Any]:
    names = {"kind": "NetworkPolicy", "plural": "networkpolicies", "singular": "networkpolicy"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"networkpolicies.{CALICO}"},
        "spec": {"group": CALICO, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def policy(cidr: str) -> dict[str, Any]:
    rules = [{"action": "Allow", "source": {"nets": [cidr]}}]
    return {
        "apiVersion": f"{CALICO}/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "broken", "namespace": "default"},
        "spec": {"selector": "app == 'server'", "types": ["Ingress"], "ingress": rules},
    }


def test_a_broken_cidr_denies_and_says_so(cluster: Installed) -> None:
    real = cluster.real
    server = cluster.run("server", "n1")
    cluster.run("client", "n2")
    address = addresses(server)[0]
    assert cluster.ask_from("client", address)[0] == "server"
    real.apply([definition()])
    real.kubectl("wait", "--for=condition=Established", f"crd/networkpolicies.{CALICO}", "--timeout=300s")
    try:
        real.apply([policy("10.42.0.999/16")])
        real.wait_until(lambda: events(cluster), "the Event", 300)
        (event,) = events(cluster)
        assert event["involvedObject"]["name"] == "broken"
        assert "spec.ingress[0].source.nets[0]: '10.42.0.999/16' is no CIDR" in event["message"]
        # The node that told is not the server's: each looks for new kinds every half minute.
        real.wait_until(lambda: is_denied(cluster, address), "the denial", 300)
        before = denied_packets(cluster)
        with pytest.raises(OSError, match="timed out"):
            cluster.inside("client", lambda: _ask_once(address))
        after = denied_packets(cluster)
        assert after > before > 0
    finally:
        real.kubectl("delete", "crd", f"networkpolicies.{CALICO}", "--timeout=300s")


def events(cluster: Installed) -> list[dict[str, Any]]:
    found = cluster.real.get("events", "-n", "default", "--field-selector", "reason=TP5001")["items"]
    return list(found)


def denied_packets(cluster: Installed) -> int:
    """What the rule or element that denies has counted, as ``towpath policy explain`` says."""
    ends = ("client", "server", "--port", str(PORT), "-o", "json")
    command = [sys.executable, "-m", "towpath", "policy", "explain", *ends]
    command += ["--kubeconfig", str(cluster.real.kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    sides = json.loads(done.stdout)["flows"][0]["sides"]
    (kernel,) = [side["kernel"] for side in sides if side["direction"] == "ingress"]
    assert (kernel["node"], kernel["allowed"], kernel["problem"]) == ("n1", False, "")
    return int(kernel["hits"][-1]["packets"])


def is_denied(cluster: Installed, address: str) -> bool:
    try:
        cluster.inside("client", lambda: _ask_once(address))
    except TimeoutError:
        return True
    return False


def _ask_once(address: str) -> None:
    socket.create_connection((address, PORT), timeout=1).close()
