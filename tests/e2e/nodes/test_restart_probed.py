"""The restart bench under real kubelets: agents end by SIGTERM, and change their version and back.

``towpath probe`` asks all the time, on all its paths. The other version is a wheel built from an earlier
commit, in an image of its own (``bench.restart_versions``). Latency is printed and not judged: while a
container starts, three kubelets, containerds and a control plane share what processors there are.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bench.restart_versions import older_image
from installed import Installed

from towpath.probe.objects import LABEL

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOWPATH = (sys.executable, "-m", "towpath")
# On a machine too busy to measure on ("unknown") what seems lost may be late: it is looked at again.
_ATTEMPTS = 3
ROLLED = """
set -e
roll() {
    kubectl -n kube-system "$@"
    kubectl -n kube-system rollout status daemonset/towpath --timeout=300s
    kubectl -n kube-system get pods -l k8s-app=towpath -o json > "$FOLDER/$(ls "$FOLDER" | wc -l).json"
}
roll rollout restart daemonset/towpath
roll set image daemonset/towpath "*=$OLDER"
roll set image daemonset/towpath "*=$CURRENT"
"""


def test_agents_are_restarted_and_change_version_and_nothing_is_lost(cluster: Installed) -> None:
    older = older_image(print)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda machine: machine.import_images((older,)), cluster.real.machines.values()))
    for _ in range(_ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            rolled = Path(folder, "rolled")
            rolled.mkdir()
            result = probed(cluster, Path(folder), FOLDER=str(rolled), OLDER=older.reference)
            agents = [json.loads((rolled / f"{number}.json").read_text())["items"] for number in range(3)]
        if result["judgement"]["level"] != "unknown" or not result["total"]["lost"]:
            break

    nodes = len(cluster.real.machines)
    images = [{image_of(pod) for pod in met} for met in agents]
    assert images[0] == images[2] != images[1]
    assert [len(one) for one in images] == [1, 1, 1], images
    assert len({pod["metadata"]["uid"] for met in agents for pod in met}) == 3 * nodes

    assert not result["left_out"]
    paths = {path["path"] for path in result["paths"]}
    assert {"pod → pod, cross node", "pod → service", "pod → another node, SNAT", "node → NodePort"} <= paths
    total = result["total"]
    print(f"{3 * nodes} agents replaced: {result['judgement']}, {total}")
    assert total["sent"] > 10_000
    assert (total["lost"], total["opened"]) == (0, 0)

    # It is on its way out; the namespace controller takes its own time, up to minutes.
    namespaces = cluster.real.get("namespaces", "-l", LABEL)["items"]
    assert all(space["metadata"].get("deletionTimestamp") for space in namespaces)


def image_of(pod: dict[str, Any]) -> str:
    """What containerd runs, whatever it is called."""
    return str(pod["status"]["containerStatuses"][0]["imageID"])


def probed(cluster: Installed, folder: Path, **given: str) -> dict[str, Any]:
    """The rollouts under probes; the result as JSON. The probes' image is the agent's."""
    kubectl = f'kubectl() {{ {cluster.real.binaries.kubectl} --kubeconfig {cluster.real.kubeconfig} "$@"; }}'
    words = {**given, "CURRENT": cluster.values.image}
    script = "\n".join((kubectl, *(f"{name}={value}" for name, value in words.items()), ROLLED))
    report = folder / "result.json"
    light = ("--slower", "4", "--control", "5", "--node", "n1", "--json", str(report))
    what = ("--title", "agents restarted, of another version, and back", "--while", script)
    command = [*TOWPATH, "probe", "--kubeconfig", str(cluster.real.kubeconfig), *light, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=420)
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode in (0, 3, 6), done.stderr
    result: dict[str, Any] = json.loads(report.read_text())
    return result
