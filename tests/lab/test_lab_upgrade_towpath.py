"""Towpath takes itself to another version and back in the lab, conducted, and nothing is lost.

The same program runs under both versions' names (another commit's does in `make e2e`). All the time ``towpath
probe`` asks on all paths, a second network among them, while pods and a policy come and go. Latency is told
and not judged: the machine has other work. It takes a minute, so it is `make e2e` that runs it.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab_objects import TOWPATH, Kubectl, deployment, eventually, get, towpath

from towpath.lab.client import LabClient

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

AGENTS = ("daemonset", "-n", "kube-system", "towpath")
OTHER = "v99.0.0"
NETWORK = "default/storage"
KIND = "network-attachment-definitions.k8s.cni.cncf.io"
CRDS = Path(__file__).parents[2] / "demo/crds.yaml"
_ATTEMPTS = 2  # where the machine was too busy to measure on
CONDUCTED = """
set -e
for to in "$OTHER" "$CURRENT"; do
    $TOWPATH upgrade plan --to "$to" -f "$to.json" --kubeconfig "$CONFIG" $QUICK
    $TOWPATH upgrade apply "$to.json" --kubeconfig "$CONFIG"
    $TOWPATH upgrade report -o json --kubeconfig "$CONFIG" > "$to.report"
done
"""


@pytest.fixture
def storage(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    """A second network across the nodes; each has its own part of the addresses."""
    crd = next(one for one in yaml.safe_load_all(CRDS.read_text()) if one["metadata"]["name"] == KIND)
    kubectl("apply", "-f", "-", stdin=json.dumps(crd))
    kubectl("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=240s")
    nodes = [node["name"] for node in lab.call("inspect")["nodes"]]
    for number, node in enumerate(nodes):
        first = 32 * number + 10
        part = {"subnet": "192.168.77.0/24", "rangeStart": f"192.168.77.{first}"}
        ranges = [[part | {"rangeEnd": f"192.168.77.{first + 20}"}]]
        ipam = {"type": "host-local", "ranges": ranges}
        text = json.dumps({"cniVersion": "1.0.0", "name": "storage", "type": "macvlan", "ipam": ipam})
        on(lab, node, f"echo '{text}' > /etc/cni/net.d/90-storage.conf")
    made = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    kubectl("apply", "-f", "-", stdin=json.dumps({**made, "metadata": {"name": "storage"}, "spec": {}}))
    yield
    kubectl("delete", "crd", KIND)
    for node in nodes:
        on(lab, node, "rm /etc/cni/net.d/90-storage.conf")


def on(lab: LabClient, node: str, script: str) -> None:
    towpath("exec", "--name", lab.name, node, "--", "sh", "-c", script)


@contextmanager
def comings_and_goings(kubectl: Kubectl) -> Iterator[list[int]]:
    """Pods and a policy come and go until the end; how many times stands in what is given."""
    over, turns = threading.Event(), [0]

    def run() -> None:
        while not over.is_set():
            kubectl("apply", "-f", "-", stdin=json.dumps(policy(turns[0] % 2)))
            kubectl("scale", "deployment/comings", f"--replicas={2 if turns[0] % 2 else 4}")
            kubectl("rollout", "status", "deployment/comings", "--timeout=240s")
            turns[0] += 1

    kubectl("apply", "-f", "-", stdin=deployment("comings", 2))
    kubectl("rollout", "status", "deployment/comings", "--timeout=240s")
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(run)
        try:
            yield turns
        finally:
            over.set()
            going.result(300)
            kubectl("delete", "networkpolicy", "comings", "--ignore-not-found")
            kubectl("delete", "deployment", "comings")


def policy(turn: int) -> dict[str, Any]:
    """Closes all but one port of the pods that come and go, another one every time."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "comings"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "comings"}},
            "ingress": [{"ports": [{"port": 8080 + turn}]}],
        },
    }


@pytest.mark.usefixtures("storage")
def test_to_another_version_and_back(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> None:
    image = get(kubectl, *AGENTS)["spec"]["template"]["spec"]["containers"][0]["image"]
    current = image.rpartition(":")[2]
    try:
        for attempt in range(_ATTEMPTS):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            with comings_and_goings(kubectl) as turns:
                result = probed(lab, current, folder)
            if result["judgement"]["level"] != "unknown" or not result["total"]["lost"]:
                break
        reports = [json.loads((folder / f"{to}.report").read_bytes()) for to in (OTHER, current)]
        plans = [json.loads((folder / f"{to}.json").read_bytes()) for to in (OTHER, current)]
    finally:
        kubectl("delete", "configmap", "-n", "kube-system", "towpath-upgrade", "--ignore-not-found")
    for plan, report in zip(plans, reports, strict=True):
        assert report["mode"] == "done", report["records"][-1]
        assert [node["state"] for node in report["nodes"]] == ["passed"] * 3
        assert plan["digests"]
    assert {new.rpartition(":")[2] for _, new in plans[0]["images"].values()} == {OTHER}
    eventually(lambda: get(kubectl, *AGENTS)["status"].get("numberReady") == 3)
    now = get(kubectl, *AGENTS)["spec"]
    assert now["updateStrategy"]["type"] == "RollingUpdate"
    assert now["template"]["spec"]["containers"][0]["image"] == image
    assert not result["left_out"]
    paths = {path["path"] for path in result["paths"]}
    assert {"pod → pod, cross node", "pod → service", "pod → outside, SNAT"} <= paths
    assert {"outside → NodePort", "node → pod", "pod → pod, secondary network"} <= paths
    assert turns[0] > 0 and result["total"]["sent"] > 5_000
    total = result["total"]
    told = f"{result['judgement']['level']}, {total}, pods and policies came and went {turns[0]} times"
    print(f"\nthere and back: {told}")  # noqa: T201 (for `make e2e`)
    assert (total["lost"], total["opened"]) == (0, 0), result["judgement"]
    verify = [*TOWPATH, "verify", "--probes", "--expect", current, "--kubeconfig", lab.kubeconfig]
    done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 6), f"{done.stdout}\n{done.stderr}"  # 6: too busy to tell


def probed(lab: LabClient, current: str, folder: Path) -> dict[str, Any]:
    """Both ways under probes; the result as JSON."""
    words = {
        "TOWPATH": f'"{" ".join(TOWPATH)}"',
        "CONFIG": lab.kubeconfig,
        "QUICK": '"--no-probes --soak 0.2 --canary-soak 0.2"',
        "OTHER": OTHER,
        "CURRENT": current,
    }
    script = "\n".join((*(f"{name}={value}" for name, value in words.items()), CONDUCTED))
    light = ("--slower", "4", "--control", "2", "--node", "n1", "--network", NETWORK, "--json", "r.json")
    command = [*TOWPATH, "probe", "--kubeconfig", lab.kubeconfig, *light, "--while", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, cwd=folder)
    assert (folder / "r.json").exists(), f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    result: dict[str, Any] = json.loads((folder / "r.json").read_text())
    assert result["marks"][-1]["what"].startswith("ended with 0"), done.stderr[-4000:]
    return result
