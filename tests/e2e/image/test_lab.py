"""The lab's agents run from the image: its files are their root, whatever else the machine has."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from towpath.image import build, lock
from towpath.lab.client import LabClient
from towpath.lab.manifests import HOST_PATHS, IMAGE

VOLUMES = ("dev", "proc", "run", "sys", *(path.lstrip("/") for path in HOST_PATHS.values()))
ECHO = {"name": "echo", "image": "towpath/echo:1", "ports": [{"containerPort": 8080}]}
PODS = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "echo"},
    "spec": {
        "replicas": 4,
        "selector": {"matchLabels": {"app": "echo"}},
        "template": {
            "metadata": {"labels": {"app": "echo"}},
            "spec": {"containers": [ECHO]},
        },
    },
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabClient]:
    """Two nodes whose agents have the image's files."""
    folder = tmp_path_factory.mktemp("lab")
    built = build.build(build.project(), lock.machine(), folder / "image", print)
    root = folder / "root"
    tag = build.REFERENCE.rpartition(":")[2]
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{built.layout}:{tag}", root], check=True)
    for name in VOLUMES:
        (root / name).mkdir(parents=True, exist_ok=True)
    topology = folder / "topology.yaml"
    topology.write_text(yaml.safe_dump({"images": {IMAGE: str(root)}}))
    command = [sys.executable, "-m", "towpath", "lab", "up", "--name", "image", "--nodes", "2"]
    subprocess.run([*command, "--topology", str(topology)], check=True, timeout=180)
    client = LabClient("image")
    yield client
    client.call("down")


def kubectl(client: LabClient, *arguments: str, stdin: str = "") -> str:
    command = ["kubectl", f"--kubeconfig={client.kubeconfig}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=180)
    return done.stdout


def test_agents_from_the_image_wire_pods_that_reach_each_other(client: LabClient) -> None:
    kubectl(client, "apply", "-f", "-", stdin=json.dumps(PODS))
    kubectl(client, "rollout", "status", "deployment/echo", "--timeout=120s")
    pods = json.loads(kubectl(client, "get", "pods", "-l", "app=echo", "-o", "json"))["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"n1", "n2"}
    addresses = [one["ip"] for pod in pods for one in pod["status"]["podIPs"]]
    to = [{"addr": address, "port": 8080, "proto": "tcp"} for address in addresses]
    probes = [{"from": {"pod": f"default/{pod['metadata']['name']}"}, "to": to} for pod in pods]
    answers = client.call("run-in", probes=probes)
    assert [(a["from"], t) for a in answers for t in a["to"] if not t["ok"]] == []


def test_nothing_else_is_their_root(client: LabClient) -> None:
    for node in ("n1", "n2"):
        (agent,) = agents(node)
        root = Path(f"/proc/{agent}/root")
        assert (root / "usr/bin/towpath-launch").exists()
        assert not (root / "bin/sh").exists()
        assert Path(f"/proc/{agent}/exe").readlink().name == "python3.11"


def agents(node: str) -> list[int]:
    """Processes of an agent on ``node``, as the machine numbers them, that the image started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
            ours = b"towpath.agent" in words and f"TOWPATH_NODE_NAME={node}".encode() in environment
            if ours and (folder / "root/usr/bin/towpath-launch").exists():
                found.append(int(folder.name))
    return found
