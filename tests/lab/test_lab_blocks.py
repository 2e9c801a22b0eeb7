"""Block mode in a lab, with packets: Calico's pools, blocks in others' podCIDRs, borrowed addresses."""

import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_objects import TOWPATH, Kubectl, deployment, eventually, failures, get, pod, towpath
from lab_rights import asked, granted

from towpath.api.report import BY_BLOCKS, IPAM_MODE
from towpath.ipam.block_plan import handle_of
from towpath.ipam.blocks import read_block
from towpath.lab.client import LabClient
from towpath.model.net import Addr

pytestmark = pytest.mark.lab

PORTS = [{"containerPort": 8080}]
KINDS = Path(__file__).parents[2] / "manifests" / "calico-ipam.yaml"
POOLS = {
    "main": {"cidr": "10.42.0.0/17", "blockSize": 28},
    "edge": {"cidr": "10.42.200.0/29", "blockSize": 29, "nodeSelector": "has(never)"},
    "six": {"cidr": "fd00:10:42::/56", "blockSize": 122},
}


def pool(name: str, **spec: Any) -> str:
    body = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": spec,
    }
    return json.dumps(body)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, runtime_dir: Path) -> Iterator[LabClient]:
    """Three nodes that have Calico's kinds, and addresses of their podCIDRs at first."""
    file = tmp_path_factory.mktemp("blocks") / "topology.yaml"
    crds = list(yaml.safe_load_all(KINDS.read_text()))
    file.write_text(yaml.safe_dump({"crds": crds}))
    towpath("up", "--name", "blocks", "--topology", str(file))
    client = LabClient("blocks")
    yield client
    client.call("down")


@pytest.fixture(scope="module")
def kubectl(lab: LabClient) -> Kubectl:
    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env={**os.environ, "KUBECONFIG": lab.kubeconfig},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"kubectl {arguments}: {done.stdout}\n{done.stderr}")
        return done.stdout

    for name, spec in POOLS.items():
        run("apply", "-f", "-", stdin=pool(name, **spec))
    return run


def addresses(one: dict[str, Any]) -> list[Addr]:
    return [ip_address(i["ip"]) for i in one["status"].get("podIPs", ())]


def told(lab: LabClient, *what: str) -> Any:
    """What ``towpath ipam`` prints, whatever its exit code."""
    command = [*TOWPATH, "ipam", *what, "-o", "json", "--kubeconfig", lab.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def holders(kubectl: Kubectl) -> dict[Addr, str]:
    """The handle of each address that is taken, by the API."""
    found = {}
    for obj in get(kubectl, "ipamblocks")["items"]:
        block = read_block(obj)
        for ordinal, index in enumerate(block.allocations):
            if index is not None:
                found[block.address(ordinal)] = block.owners[index].handle
    return found


def owned_where_they_are(kubectl: Kubectl, pods: list[dict[str, Any]]) -> bool:
    """Whether the API has every address of these pods as their nodes'."""
    wanted = {a: handle_of(one["spec"]["nodeName"]) for one in pods for a in addresses(one)}
    return wanted.items() <= holders(kubectl).items()


def ready(kubectl: Kubectl, *names: str) -> list[dict[str, Any]]:
    kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=240s")
    return [get(kubectl, "pod", name) for name in names]


def reached(lab: LabClient, pods: list[dict[str, Any]]) -> None:
    """Waits until all pods reach each other and the outside."""
    unreached: list[object] = []

    def all_reached() -> bool:
        unreached[:] = failures(lab, pods)
        return not unreached

    try:
        eventually(all_reached)
    except AssertionError as error:
        raise AssertionError(unreached) from error


def test_a_cluster_is_migrated_node_by_node_with_pods_running(lab: LabClient, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=deployment("echo", 3))
    kubectl("rollout", "status", "deployment/echo", "--timeout=240s")
    before = get(kubectl, "pods", "-l", "app=echo")["items"]
    for node in sorted(n["metadata"]["name"] for n in get(kubectl, "nodes")["items"]):
        line = "echo 'ipam_mode: blocks' >> /etc/towpath/agent.yaml"
        towpath("exec", "--name", "blocks", node, "--", "sh", "-c", line)
        lab.call("kill-agent", node=node)

        def migrated(name: str = node) -> bool:
            notes = get(kubectl, "node", name)["metadata"].get("annotations", {})
            return bool(notes.get(IPAM_MODE) == BY_BLOCKS)

        eventually(migrated)
        reached(lab, before)
    after = get(kubectl, "pods", "-l", "app=echo")["items"]
    assert {p["metadata"]["uid"]: addresses(p) for p in after} == {
        p["metadata"]["uid"]: addresses(p) for p in before
    }
    eventually(lambda: owned_where_they_are(kubectl, after))


def test_pods_of_all_nodes_reach_each_other_wherever_their_addresses_are(
    lab: LabClient, kubectl: Kubectl
) -> None:
    pods = get(kubectl, "pods", "-l", "app=echo")["items"]
    nodes = {n["metadata"]["name"]: n["spec"]["podCIDRs"] for n in get(kubectl, "nodes")["items"]}
    one, two, three = sorted(nodes)

    # Three pods on three nodes of a pool that is one block: two of the nodes borrow.
    edge = {"cni.projectcalico.org/ipv4pools": '["edge"]'}
    kubectl("patch", "ippool", "edge", "--type=merge", "-p", '{"spec": {"nodeSelector": null}}')
    for node in (one, two, three):
        kubectl("apply", "-f", "-", stdin=pod(f"edge-{node}", node, edge, ports=PORTS))
    # An address by name, of a block in another node's podCIDR that nobody has.
    theirs = next(ip_network(text) for text in nodes[one] if "." in text)
    wanted = theirs.network_address + 200
    wish = {
        "cni.projectcalico.org/ipAddrs": f'["{wanted}"]',
        "cni.projectcalico.org/hwAddr": "02:00:5e:10:00:01",
    }
    kubectl("apply", "-f", "-", stdin=pod("wish", two, wish, ports=PORTS))
    edges = ready(kubectl, *(f"edge-{node}" for node in (one, two, three)))
    (wished,) = ready(kubectl, "wish")

    assert all(a in ip_network("10.42.200.0/29") for p in edges for a in addresses(p) if a.version == 4)
    assert wanted in addresses(wished)
    assert "02:00:5e:10:00:01" in kubectl("exec", "wish", "--", "cat", "/sys/class/net/eth0/address")
    everybody = [*pods, *edges, wished]
    eventually(lambda: owned_where_they_are(kubectl, everybody))
    reached(lab, everybody)

    # What operators see of it.
    by_pool = {r["pool"]: r for r in told(lab, "show", "--by", "pool")}
    assert (by_pool["edge"]["size"], by_pool["edge"]["used"]) == (7, 3)  # one address is the overlay's
    found = [a for one_of in everybody for a in addresses(one_of)]
    assert by_pool["six"]["used"] == sum(a.version == 6 for a in found)
    blocks = told(lab, "show", "--by", "block")
    edge_rows = {r["node"]: r["used"] for r in blocks if r["block"] == "10.42.200.0/29"}
    assert edge_rows == {one: 1, two: 1, three: 1}
    assert sum(r["used"] for r in blocks) == len(found)


# What else an agent in block mode may do: look after a conflict (test_blocks_race.py), give up a block
# (tests/unit/test_blocks_retire.py).
SELDOM = {(verb, "crd.projectcalico.org", kind) for verb in ("get", "delete")
          for kind in ("ipamblocks", "blockaffinities", "ipamhandles")}  # fmt: skip


def test_all_of_this_asked_for_what_an_agent_in_block_mode_is_granted_and_used_it(kubectl: Kubectl) -> None:
    """Last in the file."""
    assert asked(kubectl) <= granted({"ipam_mode": "blocks"})
    assert granted({"ipam_mode": "blocks"}) - granted({}) - SELDOM <= asked(kubectl)
