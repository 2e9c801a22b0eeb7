"""What is done around the nodes' turns: helm is kept away, pods are moved, others are told."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, deployment, eventually, get
from lab_rights import Account, of_rules
from lab_upgrade import (
    AFTER,
    BEFORE,
    DAEMONSET,
    HELM_SKIP,
    NEW,
    OLD,
    QUICK,
    SKIP,
    Upgrade,
    flannels,
    helm_controller,
    stand_in,
    strategy,
    vanishing,
)

from towpath.catalogue import load
from towpath.lab import helm
from towpath.lab.client import LabClient
from towpath.upgrade.node_plans import frozen_arguments, may_look

pytestmark = pytest.mark.lab


@pytest.fixture
def upgrade(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> Iterator[Upgrade]:
    with stand_in(lab, kubectl, tmp_path) as command:
        yield command


def pods_of(kubectl: Kubectl) -> dict[str, str]:
    pods = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    return {pod["metadata"]["uid"]: pod["spec"].get("nodeName", "") for pod in pods}


def frozen(kubectl: Kubectl) -> bool:
    chart = get(kubectl, "helmchart", "-n", "kube-system", "rke2-canal")
    return helm.UNMANAGED in (chart["metadata"].get("annotations") or {})


async def test_helm_is_kept_away_and_unfreezing_rolls_nothing(
    upgrade: Upgrade, kubectl: Kubectl, lab: LabClient
) -> None:
    """A server is upgraded in the middle and writes the new chart; helm leaves it alone until the end."""
    async with helm_controller(lab, kubectl):
        code, told = await asyncio.to_thread(
            upgrade.run,
            "plan",
            "--to",
            NEW,
            "-f",
            str(upgrade.file),
            *QUICK,
            "--canary-soak",
            "8",
            *HELM_SKIP,
        )
        assert (code, "is frozen until the end" in told) == (0, True), told
        before = pods_of(kubectl)
        applying = asyncio.create_task(asyncio.to_thread(upgrade.run, "apply", str(upgrade.file)))
        await asyncio.to_thread(eventually, lambda: AFTER in flannels(kubectl).values())
        assert frozen(kubectl) and strategy(kubectl) == "OnDelete"
        await asyncio.to_thread(
            kubectl, "apply", "-f", "-", stdin=json.dumps(helm.chart(load.builtin(), NEW))
        )
        code, told = await applying
        assert (code, "unfreeze HelmChart rke2-canal" in told) == (0, True), told
        assert not frozen(kubectl) and set(flannels(kubectl).values()) == {AFTER}
        assert not before.keys() & pods_of(kubectl).keys()
        after = pods_of(kubectl)
        # helm applies again by any change of its chart; when the label is there, it has seen the thaw as well
        await asyncio.to_thread(helm_has_applied, kubectl)
        assert pods_of(kubectl) == after and strategy(kubectl) == "RollingUpdate"
        # Back again, while the server has the new chart: helm would undo that, so the chart stays frozen.
        code, told = await asyncio.to_thread(upgrade.run, "rollback")
        assert (code, "TP7405" in told) == (5, True), told
        assert frozen(kubectl) and set(flannels(kubectl).values()) == {BEFORE}


def helm_has_applied(kubectl: Kubectl) -> None:
    """Spoil what helm keeps and touch its chart: when it is mended, helm has looked since."""
    spoilt = '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}'
    kubectl("patch", *DAEMONSET, "--type=merge", "-p", spoilt)
    kubectl("annotate", "helmchart", "-n", "kube-system", "rke2-canal", "test/touched=1", "--overwrite")
    eventually(lambda: strategy(kubectl) == "RollingUpdate")


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    told: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    serving = Thread(target=server.serve_forever)
    serving.start()
    Hook.told.clear()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    serving.join()
    server.server_close()


def test_a_budget_that_forbids_draining_stops_it_and_everybody_is_told(
    upgrade: Upgrade, kubectl: Kubectl, webhook: str
) -> None:
    """Then the budget goes, the pods move, and every node comes back."""
    kubectl("apply", "-f", "-", stdin=deployment("stays", 3))
    kubectl("rollout", "status", "deployment/stays", "--timeout=240s")
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "stays"}}
    spec = {"minAvailable": "100%", "selector": {"matchLabels": {"app": "stays"}}}
    kubectl("apply", "-f", "-", stdin=json.dumps({**budget, "spec": spec}))
    try:
        quick = ("--soak", "0.2", "--canary-soak", "0.2", "--ready-within", "60", "--drain-within", "2")
        code, told = upgrade.run("plan", "--to", NEW, "-f", str(upgrade.file), "--drain", *quick, *SKIP)
        assert (code, "drained during its turn" in told) == (0, True), told
        code, told = upgrade.run("apply", str(upgrade.file), "--webhook", webhook)
        assert code == 4, told
        assert "cannot be drained" in told
        assert [one["mode"] for one in Hook.told] == ["paused"] * len(Hook.told) != []
        assert "disruption budget" in Hook.told[-1]["text"]
        events = get(kubectl, "event", "-n", "kube-system", "--field-selector", "reason=UpgradePaused")[
            "items"
        ]
        assert events[-1]["involvedObject"]["name"] == "rke2-canal" and events[-1]["type"] == "Warning"
        kubectl("delete", "pdb", "stays")
        held = [one["metadata"]["name"] for one in cordoned(kubectl)]
        assert len(held) == 1
        while (code := (said := upgrade.run("resume"))[0]) == 4:  # a pod takes longer to end than was given
            assert "cannot be drained" in said[1], said
        assert code == 0, said
        assert not cordoned(kubectl) and set(flannels(kubectl).values()) == {AFTER}
    finally:
        kubectl("delete", "deployment", "stays")
        kubectl("delete", "pdb", "stays", "--ignore-not-found")


def cordoned(kubectl: Kubectl) -> list[Any]:
    return [node for node in get(kubectl, "nodes")["items"] if node["spec"].get("unschedulable")]


def test_outside_the_window_and_what_others_own(upgrade: Upgrade, kubectl: Kubectl) -> None:
    arguments = ("plan", "--to", NEW, "-f", str(upgrade.file), *QUICK, *SKIP)
    code, told = upgrade.run(*arguments, "--window", "Sat 22:00 UTC")
    assert (code, "TP7407" in told) == (2, True), told
    kubectl(
        "label",
        *DAEMONSET,
        "kustomize.toolkit.fluxcd.io/name=net",
        "kustomize.toolkit.fluxcd.io/namespace=flux",
    )
    code, told = upgrade.run(*arguments)
    assert (code, "TP7406" in told and "Flux (Kustomization flux/net)" in told) == (7, True), told
    code, told = upgrade.run(*arguments, "--managed-elsewhere", "--window", closed_now())
    assert (code, "managed elsewhere" in told) == (0, True), told
    running = subprocess.Popen(
        upgrade.command("apply", str(upgrade.file)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    eventually(lambda: "it opens" in upgrade.run("status")[1])
    assert set(flannels(kubectl).values()) == {BEFORE}
    assert upgrade.run("abort")[0] == 0 and running.wait(240) == 4
    assert set(flannels(kubectl).values()) == {BEFORE} and strategy(kubectl) == "RollingUpdate"


def closed_now() -> str:
    """A window that opens in three days."""
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=3)).strftime("%a 12:00-13:00 UTC")


async def test_nodes_are_upgraded_only_while_the_network_is_held_back(
    upgrade: Upgrade, kubectl: Kubectl, lab: LabClient
) -> None:
    """What the servers' plan asks is asked by the real kubectl; unfreezing is refused while it would roll."""
    async with helm_controller(lab, kubectl):
        ask = frozen_arguments(("rke2-canal",))
        with pytest.raises(AssertionError):
            await asyncio.to_thread(kubectl, *[w.replace("=10s", "=1s") for w in ask])
        assert (await asyncio.to_thread(upgrade.run, "freeze"))[0] == 0
        account = Account(lab, kubectl, "upgrades-nodes")
        await asyncio.to_thread(kubectl, "--kubeconfig", account.kubeconfig, *ask)
        role, _ = may_look(("rke2-canal",))
        assert account.asked() == of_rules(role["rules"])
        newer = json.dumps(helm.chart(load.builtin(), NEW))
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=newer)
        code, told = await asyncio.to_thread(upgrade.run, "unfreeze")
        assert (code, "TP7405" in told) == (7, True), told
        older = json.dumps(helm.chart(load.builtin(), OLD))
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=older)
        before = pods_of(kubectl)
        assert (await asyncio.to_thread(upgrade.run, "unfreeze"))[0] == 0
        assert not frozen(kubectl) and pods_of(kubectl) == before


def test_several_clusters_at_once(lab: LabClient, tmp_path: Path) -> None:
    """Two contexts of one lab, and one that leads nowhere: each has its answer, the worst counts."""
    import yaml

    raw = yaml.safe_load(Path(lab.kubeconfig).read_text())
    (context,) = raw["contexts"]
    nowhere = {"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}
    raw["clusters"].append(nowhere)
    raw["contexts"] += [
        {"name": "again", "context": context["context"]},
        {"name": "nowhere", "context": {**context["context"], "cluster": "nowhere"}},
    ]
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(raw))
    names = f"{context['name']},again"
    command = [*TOWPATH, "verify", "--kubeconfig", str(file), "-o", "json", "--contexts"]
    both = subprocess.run([*command, names], capture_output=True, text=True, check=False, timeout=300)
    answers = json.loads(both.stdout)  # what each says of itself is verify's own test
    assert list(answers) == names.split(",") and all("rollout" in one for one in answers.values()), (
        both.stderr
    )
    done = subprocess.run(
        [*command, "again,nowhere"], capture_output=True, text=True, check=False, timeout=300
    )
    told = json.loads(done.stdout)
    assert done.returncode == 7 and "error" in told["nowhere"] and "rollout" in told["again"]


def test_watched_afterwards(upgrade: Upgrade, kubectl: Kubectl, tmp_path: Path) -> None:
    """Against the baseline: nothing is worse, then a kind has vanished."""
    kubectl("apply", "-f", "-", stdin=json.dumps(vanishing("crd.projectcalico.org")))
    kubectl("wait", "--for=condition=Established", "crd/vanishings.crd.projectcalico.org", "--timeout=240s")
    baseline = str(tmp_path / "before.json")
    try:
        quiet = ("--probe-seconds", "0", "--every", "1s", "--no-read-nodes")
        code, told = upgrade.run("watch", "--save", baseline, "--probe-seconds", "0", "--read-nodes")
        assert (code, "pods of the network ready" in told) == (0, True), told
        code, told = upgrade.run("watch", "--for", "1s", "--baseline", baseline, *quiet)
        assert (code, "nothing is worse" in told) == (0, True), told
    finally:
        kubectl("delete", "crd", "vanishings.crd.projectcalico.org")
    eventually(lambda: "vanishings" not in kubectl("get", "crd", "-o", "name"))
    code, told = upgrade.run("watch", "--for", "1s", "--baseline", baseline, *quiet)
    assert (code, "TP7609 vanishings.crd.projectcalico.org" in told) == (3, True), told
    code, told = upgrade.run("watch", "--for", "1s", "--baseline", str(upgrade.file))
    assert code == 2, told
