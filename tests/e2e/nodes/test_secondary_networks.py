"""Pods with two networks beside the pod network, under a real kubelet and containerd; Debian's plugins.

After test_restarts.py, which counts the agents' restarts: here a node is rebooted.
"""

import json
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed import PORT, Installed, patiently, pod

from towpath.install.helper import helper
from towpath.lab.real.echo import ask

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[3] / "demo/crds.yaml"
KIND = "network-attachment-definitions.k8s.cni.cncf.io"
NETWORKS, STATUS = "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/network-status"
FLAT = {"type": "macvlan", "master": "eth0", "ipam": {"type": "static"}}
LOCAL = {
    "type": "bridge",
    "bridge": "br77",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]},
}


def definition(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"config": json.dumps({"cniVersion": "1.0.0", **config})},
    }


@pytest.fixture(scope="module")
def networks(cluster: Installed) -> None:
    """``flat`` across the nodes, done by Towpath itself; ``local`` on each node, by Debian's plugins."""
    for machine in cluster.real.machines.values():
        for plugin in ("bridge", "host-local"):
            shutil.copy2(Path("/usr/lib/cni", plugin), machine.disk / "opt-cni" / "bin")
    documents = yaml.safe_load_all(CRDS.read_text())
    cluster.real.apply([one for one in documents if one["metadata"]["name"] == KIND])
    cluster.real.kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=300s")
    cluster.real.apply([definition("flat", FLAT), definition("local", LOCAL)])


def start(cluster: Installed, name: str, node: str, last: int) -> None:
    made = pod(name, node)
    asked = [{"name": "flat", "ips": [f"192.168.88.{last}/24"]}, {"name": "local", "interface": "data0"}]
    made["metadata"]["annotations"] = {NETWORKS: json.dumps(asked)}
    cluster.real.apply([made])
    cluster.wait_pods(name, 1)


def told(cluster: Installed, name: str) -> dict[str, list[str]]:
    """Addresses by interface, as network-status has them."""
    annotations = cluster.real.get("pod", name)["metadata"].get("annotations") or {}
    return {one["interface"]: one.get("ips", []) for one in json.loads(annotations.get(STATUS, "[]"))}


def given_out(cluster: Installed, node: str) -> list[str]:
    """What host-local has given out."""
    script = "ls /var/lib/cni/networks/local 2>/dev/null || true"
    return [name for name in cluster.real.machines[node].run("sh", "-c", script).split() if name[0].isdigit()]


def journalled(cluster: Installed, node: str) -> int:
    """How many attachments the agent knows of."""
    [(count,)] = cluster.read(node, "networks.db", "SELECT count(*) FROM attachments")
    return int(count)


def interfaces(cluster: Installed, name: str) -> set[str]:
    """What the pod has in the kernel; nothing while it has no process."""
    with suppress(OSError):  # it has just ended
        pid = cluster.real.machines[cluster.node_of(name)].pod_process(name)
        words = Path(f"/proc/{pid}/net/dev").read_text().replace(":", " ").split()
        return set(words) & {"eth0", "net1", "data0", "net3"}
    return set()


def nothing_left(cluster: Installed) -> None:
    for node in cluster.real.machines:
        cluster.real.wait_until(
            lambda node=node: not given_out(cluster, node) and journalled(cluster, node) == 0,  # type: ignore[misc]
            f"nothing left on {node}: {given_out(cluster, node)}",
            300,
        )


@pytest.mark.usefixtures("networks")
def test_two_more_networks_a_reboot_and_the_end(cluster: Installed) -> None:
    for name, node, last in (("left", "n1", 1), ("right", "n2", 2)):
        start(cluster, name, node, last)
        assert interfaces(cluster, name) == {"eth0", "net1", "data0"}
    three = {"eth0", "net1", "data0"}
    cluster.real.wait_until(lambda: set(told(cluster, "left")) == three, "network-status", 300)
    assert cluster.ask_from("left", "192.168.88.2") == ("right", "192.168.88.1")

    machine = cluster.real.machines["n2"]
    boot = machine.boot_id
    machine.reboot()
    cluster.real.wait_until(
        lambda: cluster.real.get("node", "n2")["status"]["nodeInfo"]["bootID"] == machine.boot_id != boot,
        "the new boot id",
        300,
    )
    cluster.wait_nodes()

    def again() -> bool:
        return interfaces(cluster, "right") == three

    cluster.real.wait_until(again, "the pod has its networks after the reboot", 300)
    cluster.wait_pods("right", 1)
    assert cluster.ask_from("left", "192.168.88.2") == ("right", "192.168.88.1")
    # What the former sandbox had goes: once by the runtime's DEL, else on two proofs.
    cluster.real.wait_until(lambda: len(given_out(cluster, "n2")) == 1, "one lease a pod", 300)

    cluster.real.kubectl("delete", KIND, "flat")  # DEL does not need it
    cluster.delete_workloads()
    nothing_left(cluster)
    cluster.real.apply([definition("flat", FLAT)])


@pytest.mark.usefixtures("networks")
def test_networks_of_a_running_pod_change(cluster: Installed) -> None:
    cluster.real.apply([helper(cluster.values)])
    cluster.real.kubectl(
        "rollout", "status", "daemonset/towpath-ns", "-n", "kube-system", "--timeout=300s", timeout=400
    )
    try:
        cluster.run("plain", "n1")
        asked = json.dumps([{"name": "local", "interface": "data0"}, {"name": "local", "interface": "net3"}])
        cluster.real.kubectl("annotate", "pod", "plain", f"{NETWORKS}={asked}")
        three = {"eth0", "data0", "net3"}
        cluster.real.wait_until(lambda: interfaces(cluster, "plain") == three, "attached while it runs", 300)
        cluster.real.wait_until(lambda: set(told(cluster, "plain")) == three, "network-status", 300)
        address = told(cluster, "plain")["data0"][0]
        asking = partial(cluster.real.machines["n1"].inside, partial(ask, address, PORT))
        assert patiently(asking)[0] == "plain"
        cluster.real.kubectl("annotate", "--overwrite", "pod", "plain", f"{NETWORKS}=local@net3")
        cluster.real.wait_until(
            lambda: interfaces(cluster, "plain") == {"eth0", "net3"}, "detached while it runs", 300
        )
        cluster.real.wait_until(lambda: len(given_out(cluster, "n1")) == 1, "its address is free", 300)
        cluster.delete_workloads()
        nothing_left(cluster)
    finally:
        cluster.real.kubectl("delete", "daemonset", "towpath-ns", "-n", "kube-system", "--ignore-not-found")
