"""Pods with a second network in the lab: real agents and kubelets, Debian's plugins, packets across nodes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import yaml
from lab_objects import TOWPATH, Kubectl, eventually, get, pod, towpath

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
    kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=240s")
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
    kubectl("wait", "--for=condition=Ready", "pod/left", "pod/right", "--timeout=240s")
    to = [{"addr": a, "port": 8080, "proto": "tcp"} for a in ("192.168.88.2", "fd88::2")]
    question = [{"from": {"pod": "default/left"}, "to": to}]

    def reached() -> bool:
        [answer] = lab.call("run-in", probes=question, timeout=5)
        return all(one["ok"] for one in answer["to"])

    eventually(reached)
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
    kubectl("delete", "pod", "left", "right", "--timeout=240s")
    eventually(lambda: not leases("n1") and not leases("n2"))
    eventually(
        lambda: get(kubectl, "daemonset", "-n", "kube-system", "towpath")["status"]["numberReady"] == 3
    )


def in_node(node: str, *commands: str) -> None:
    """Commands of ip link in a node's namespace."""
    script = "; ".join(f"ip link {command}" for command in commands)
    towpath("exec", "--name", "shared", node, "--", "sh", "-ec", script)


def bridged(other: str, number: int) -> tuple[str, ...]:
    """A bridge that goes on to the node with host number ``other`` by a tunnel, as others do by a trunk."""
    return (
        f"add br{number} type bridge",
        f"add vx{number} type vxlan id {number} dstport 4790 dev eth0 remote 172.30.0.{other}",
        f"set vx{number} master br{number} up",
        f"set br{number} up",
    )


@pytest.fixture
def segments(kubectl: Kubectl) -> Iterator[dict[str, str]]:
    """Four networks across n1 and n2, and their addresses: macvlan and bridge, by Towpath and by Debian's."""
    for node, other in (("n1", "12"), ("n2", "11")):
        in_node(node, *bridged(other, 78), *bridged(other, 79))
    static = {"ipam": {"type": "static"}}
    kinds = {
        "own-macvlan": {"type": "macvlan", "mtu": 1400, **static},
        "own-bridge": {"type": "bridge", "bridge": "br78", "mtu": 1400, **static},
        "their-macvlan": {"type": "macvlan", "mtu": 1400, "linkInContainer": False, **static},
        "their-bridge": {"type": "bridge", "bridge": "br79", "mtu": 1400, "hairpinMode": False, **static},
    }
    items = [definition(name, config) for name, config in kinds.items()]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield {name: f"10.9{number}.0" for number, name in enumerate(kinds)}
    for node in ("n1", "n2"):
        in_node(node, *(f"del {link}" for link in ("vx78", "vx79", "br78", "br79")))


@pytest.mark.usefixtures("networks")
def test_two_and_five_networks_across_nodes(
    lab: LabClient, kubectl: Kubectl, segments: dict[str, str]
) -> None:
    pods = {"two": ("n2", 2, 3), "five": ("n1", 4, 1), "other": ("n2", 4, 2)}
    for name, (node, count, last) in pods.items():
        asked = [{"name": s, "ips": [f"{prefix}.{last}/24"]} for s, prefix in segments.items()][:count]
        if count == 4:
            asked.append({"name": "local", "interface": "data0"})
        annotations = {"k8s.v1.cni.cncf.io/networks": json.dumps(asked)}
        kubectl("apply", "-f", "-", stdin=pod(name, node, annotations, ports=[{"containerPort": 8080}]))
    kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in pods), "--timeout=240s")
    prefixes = list(segments.values())
    ways = {("two", "five"): prefixes[:2], ("five", "other"): prefixes, ("other", "five"): prefixes}
    questions = [
        {
            "from": {"pod": f"default/{start}"},
            "to": [{"addr": f"{p}.{pods[end][2]}", "port": 8080, "proto": "tcp"} for p in over],
        }
        for (start, end), over in ways.items()
    ]

    def lost() -> list[Any]:
        answers = lab.call("run-in", probes=questions, timeout=5)
        return [one for answer in answers for one in answer["to"] if not one["ok"]]

    eventually(lambda: not lost(), 60)
    annotations = get(kubectl, "pod", "five")["metadata"]["annotations"]
    status = json.loads(annotations["k8s.v1.cni.cncf.io/network-status"])
    assert [one["interface"] for one in status] == ["eth0", "net1", "net2", "net3", "net4", "data0"]
    kubectl("delete", "pod", *pods, "--timeout=240s")

    def left() -> str:
        links = towpath("exec", "--name", "shared", "n1", "--", "ip", "-br", "link").stdout
        return "\n".join(leases("n1") + re.findall(r"^(?:tpn|veth).*", links, re.MULTILINE))

    eventually(lambda: not left(), 60)


@pytest.mark.usefixtures("networks")
def test_a_pod_whose_network_is_unknown_says_so_and_starts_when_it_comes(kubectl: Kubectl) -> None:
    annotations = {"k8s.v1.cni.cncf.io/networks": "later"}
    kubectl("apply", "-f", "-", stdin=pod("waiting", "n1", annotations))

    def told() -> bool:
        events = get(kubectl, "events", "--field-selector", "involvedObject.name=waiting")["items"]
        return any(event["reason"] == "TP6002" and "default/later" in event["message"] for event in events)

    eventually(told)
    kubectl("apply", "-f", "-", stdin=json.dumps(definition("later", {"type": "macvlan"})))
    kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=240s")
    kubectl("delete", "pod", "waiting", "--timeout=240s")


POLICIES = "multi-networkpolicies.k8s.cni.cncf.io"


@pytest.fixture
def policies(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    """The kind, and agents that ask whether it is there: as they do when they start, and every 30 s."""
    documents = yaml.safe_load_all(CRDS.read_text())
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps(next(one for one in documents if one["metadata"]["name"] == POLICIES)),
    )
    kubectl("wait", "--for=condition=Established", f"crd/{POLICIES}", "--timeout=240s")
    for node in ("n1", "n2"):
        lab.call("kill-agent", node=node)
    yield
    kubectl("delete", "crd", POLICIES)


def policy(allowed: str) -> str:
    peer = {"podSelector": {"matchLabels": {"app": allowed}}}
    return json.dumps(
        {
            "apiVersion": "k8s.cni.cncf.io/v1beta2",
            "kind": "MultiNetworkPolicy",
            "metadata": {"name": "flat", "annotations": {"k8s.v1.cni.cncf.io/policy-for": "flat"}},
            "spec": {
                "podSelector": {"matchLabels": {"app": "disk"}},
                "ingress": [{"from": [peer], "ports": [{"port": 8080}]}],
            },
        }
    )


@pytest.mark.usefixtures("networks", "policies")
def test_policy_of_a_second_network_across_nodes(lab: LabClient, kubectl: Kubectl) -> None:
    """By agents as they run, and by another one that finds the pods as the first has left them."""
    kubectl("apply", "-f", "-", stdin=policy("backup"))
    for name, node, last in (("disk", "n1", 3), ("backup", "n2", 4), ("other", "n2", 5)):
        asked = json.dumps([{"name": "flat", "ips": [f"192.168.88.{last}/24", f"fd88::{last}/64"]}])
        annotations = {"k8s.v1.cni.cncf.io/networks": asked}
        made = json.loads(pod(name, node, annotations, ports=[{"containerPort": 8080}]))
        made["metadata"]["labels"] = {"app": name}
        kubectl("apply", "-f", "-", stdin=json.dumps(made))
    kubectl("wait", "--for=condition=Ready", "pod/disk", "pod/backup", "pod/other", "--timeout=240s")
    to = [{"addr": a, "port": 8080, "proto": "tcp"} for a in ("192.168.88.3", "fd88::3")]

    def reached() -> dict[str, list[bool]]:
        questions = [{"from": {"pod": f"default/{name}"}, "to": to} for name in ("backup", "other")]
        answers = lab.call("run-in", probes=questions, timeout=2)
        return {
            name: [one["ok"] for one in answer["to"]]
            for name, answer in zip(("backup", "other"), answers, strict=True)
        }

    eventually(lambda: reached() == {"backup": [True, True], "other": [False, False]}, 90)
    question = "explain", "other", "disk", "--port=8080", "--network=flat"
    found = run([*TOWPATH, "policy", *question, f"--kubeconfig={lab.kubeconfig}"], capture_output=True)
    assert found.returncode == 3, found
    lab.call("kill-agent", node="n1")
    kubectl("apply", "-f", "-", stdin=policy("other"))
    eventually(lambda: reached() == {"backup": [False, False], "other": [True, True]}, 90)
    kubectl("delete", "multi-networkpolicy", "flat")
    eventually(lambda: reached() == {"backup": [True, True], "other": [True, True]}, 90)
    kubectl("delete", "pod", "disk", "backup", "other", "--timeout=240s")
