"""Towpath takes itself to another version and back under real kubelets, conducted, and nothing is lost.

The other version is an earlier commit's (``bench.restart_versions``) under a tag of its own. All the time
``towpath probe`` asks on all its paths, while pods and policies come and go. Latency is not judged.
"""

import base64
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench.restart_versions import older_image
from installed import Installed

from towpath.lab.real.images import AGENT, agent_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOWPATH = (sys.executable, "-m", "towpath")
OTHER = "v99.0.0"  # what it is called; which commit it is, is bench.restart_versions' matter
_ATTEMPTS = 2  # where the machine was too busy to measure on
CONDUCTED = """
set -e
for to in "$OTHER" "$CURRENT"; do
    $TOWPATH upgrade plan --to "$to" -f "$FOLDER/$to.json" --kubeconfig "$CONFIG" \\
        --no-probes --soak 1 --canary-soak 3 --audit "$FOLDER/$to.tar"
    $TOWPATH upgrade apply "$FOLDER/$to.json" --kubeconfig "$CONFIG"
    $TOWPATH upgrade report -o json --kubeconfig "$CONFIG" > "$FOLDER/$to.report"
done
"""


def test_to_another_version_and_back_by_plan_and_apply(cluster: Installed) -> None:
    older, own = older_image(print), agent_image(AGENT, print)
    other = f"{cluster.values.image.rpartition(':')[0]}:{OTHER}"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda machine: machine.import_images((older,)), cluster.real.machines.values()))
    for machine in cluster.real.machines.values():
        ctr = (str(machine.binaries.ctr), "-n", "k8s.io", "images", "tag", "--force")
        machine.run(*ctr, older.reference, other)
    for _ in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, f"{OTHER}.tar").symlink_to(older.archive)
            Path(folder, f"{current(cluster)}.tar").symlink_to(own.archive)
            with comings_and_goings(cluster) as turns:
                result = probed(cluster, Path(folder))
            files = [Path(folder, f"{to}.report") for to in (OTHER, current(cluster))]
            reports = [json.loads(file.read_bytes()) for file in files]
            plans = [json.loads(Path(folder, f"{to}.json").read_bytes()) for to in (OTHER, current(cluster))]
        if result["judgement"]["level"] != "unknown" or not result["total"]["lost"]:
            break

    nodes = set(cluster.real.machines)
    for plan, report in zip(plans, reports, strict=True):
        assert report["mode"] == "done", report["records"][-1]
        assert {node["node"] for node in report["nodes"] if node["state"] == "passed"} == nodes
        assert plan["digests"] and all(digest.startswith("sha256:") for digest in plan["digests"].values())
    for image, report in zip((older, own), reports, strict=True):
        (audit,) = report["audits"]
        assert audit["digest"] == image.digest and "critical" not in audit["counts"]
    assert {new for _, new in plans[0]["images"].values()} == {other}
    status = cluster.real.get("daemonset", "towpath", "-n", "kube-system")
    assert status["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    total = result["total"]
    print(f"conducted there and back, {turns} turns of pods and policies: {result['judgement']}, {total}")
    assert turns[0] > 0 and total["sent"] > 10_000
    assert (total["lost"], total["opened"]) == (0, 0)


def test_what_an_identity_may_not_do_is_named_before_anything_is_done(cluster: Installed) -> None:
    """By the roles of the real API server; it may look at everything and change nothing."""
    kubectl = cluster.real.kubectl
    look = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [look]}
    kubectl("create", "serviceaccount", "looks")
    cluster.real.apply([{**role, "metadata": {"name": "looks"}}])
    kubectl("create", "clusterrolebinding", "looks", "--clusterrole=looks", "--serviceaccount=default:looks")
    cluster.real.wait_until(lambda: "secrets" in cluster.real.get("serviceaccount", "looks"), "a token", 300)
    try:
        with tempfile.TemporaryDirectory() as folder:
            plan, poor = Path(folder, "plan.json"), Path(folder, "config")
            made = towpath(
                cluster.real.kubeconfig, "plan", "--to", OTHER, "-f", str(plan), "--no-probes", "--no-pull"
            )
            assert made.returncode == 0, made.stderr
            poor.write_text(json.dumps(restrained(cluster)))
            done = towpath(poor, "apply", str(plan))
        assert (done.returncode, "TP7413" in done.stderr) == (7, True), done.stderr
        for right in ("patch daemonsets.apps in kube-system", "delete pods in kube-system"):
            assert right in done.stderr
        assert "list nodes" not in done.stderr
        strategy = cluster.real.get("daemonset", "towpath", "-n", "kube-system")["spec"]["updateStrategy"]
        assert strategy["type"] == "RollingUpdate"
    finally:
        kubectl("delete", "serviceaccount/looks", "clusterrole/looks", "clusterrolebinding/looks")


def towpath(kubeconfig: Path, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*TOWPATH, "upgrade", verb, "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)


def restrained(cluster: Installed) -> dict[str, Any]:
    """The cluster's kubeconfig, with that account's token."""
    (secret,) = cluster.real.get("serviceaccount", "looks")["secrets"]
    token = base64.b64decode(cluster.real.get("secret", secret["name"])["data"]["token"]).decode()
    raw = yaml.safe_load(Path(cluster.real.kubeconfig).read_text())
    raw["users"] = [{"name": raw["users"][0]["name"], "user": {"token": token}}]
    return dict(raw)


@contextmanager
def comings_and_goings(cluster: Installed) -> Iterator[list[int]]:
    """Pods and a policy come and go until the end; how many times stands in what is given.

    A turn waits for its pods. A pod that is deleted while a kubelet of Kubernetes 1.20 makes it stays for
    more than a minute, half torn down; when every turn adds some, they pile up on the nodes.
    """
    over, turns = threading.Event(), [0]

    def run() -> None:
        while not over.is_set():
            replicas = 3 if turns[0] % 2 else 5
            cluster.real.apply([policy(turns[0] % 2)])
            cluster.real.kubectl("scale", "deployment/comings", f"--replicas={replicas}")
            cluster.wait_pods("comings", replicas)
            turns[0] += 1

    cluster.deploy("comings", 3)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(run)
        try:
            yield turns
        finally:
            over.set()
            going.result(180)
            cluster.real.kubectl("delete", "networkpolicy", "comings", "--ignore-not-found")


def policy(turn: int) -> dict[str, Any]:
    """Closes all but one port of the pods that come and go, another one every time."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "comings", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "comings"}},
            "ingress": [{"ports": [{"port": 8080 + turn}]}],
        },
    }


def current(cluster: Installed) -> str:
    """The version that is installed."""
    return cluster.values.image.rpartition(":")[2]


def probed(cluster: Installed, folder: Path) -> dict[str, Any]:
    """Both ways under probes; the result as JSON."""
    words = {
        "TOWPATH": f'"{" ".join(TOWPATH)}"',
        "CONFIG": str(cluster.real.kubeconfig),
        "FOLDER": str(folder),
        "OTHER": OTHER,
        "CURRENT": current(cluster),
    }
    script = "\n".join((*(f"{name}={value}" for name, value in words.items()), CONDUCTED))
    file = folder / "result.json"
    light = ("--slower", "4", "--control", "5", "--node", "n1", "--json", str(file))
    what = ("--title", "Towpath taken to another version and back", "--while", script)
    command = [*TOWPATH, "probe", "--kubeconfig", str(cluster.real.kubeconfig), *light, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    print(done.stdout, done.stderr[-4000:])
    assert done.returncode in (0, 3, 6), done.stderr
    result: dict[str, Any] = json.loads(file.read_text())
    return result
