"""The upgrade that an article describes, whole: the network of RKE2 from v1.32.1+rke2r1 (Calico 3.29.1,
flannel 0.26.3) to v1.32.2+rke2r1 (3.29.2, 0.26.4), with stand-ins that have no network.

The article's own commands, typed: test_lab_upgrade_guide.py. What it costs, and what the way to Towpath and
back costs: ``make bench-article``.
"""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from conducted_cluster import SYSTEM, Cluster, cluster

from towpath.catalogue import load
from towpath.cli.main import cli
from towpath.kube.kinds import DAEMONSETS, Kind, Raw
from towpath.lab import canal
from towpath.lab.canal import multus
from towpath.upgrade import conductor
from towpath.upgrade import plan as plans
from towpath.upgrade.conductor import Conductor
from towpath.upgrade.gates import Verdict
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Gates, Plan
from towpath.upgrade.survey import survey

pytestmark = pytest.mark.lab

OLD, NEW = load.builtin().release("v1.32.1+rke2r1"), load.builtin().release("v1.32.2+rke2r1")
NAMES = ("n1", "n2", "n3")
POLICIES: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
POLICY = {"metadata": {"name": "closed"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}


async def test_from_the_old_release_to_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "_LOOK_EVERY", 0.01)
    async with cluster(tmp_path, *NAMES) as there:
        await there.client.create(POLICIES, POLICY, "default")
        policies = [one["metadata"] | one["spec"] for one in (await there.client.list(POLICIES)).items]
        for daemonset in (canal.daemonset(OLD), multus.daemonset(OLD)):
            await there.client.create(DAEMONSETS, daemonset, SYSTEM)
        for name in ("rke2-canal", "rke2-multus"):
            await there.ready(name, len(NAMES))
        await sound(there, tmp_path, OLD.release)

        for name in ("rke2-canal", "rke2-multus"):
            stale = await conducted(there, tmp_path, name)
            assert {line.partition(" on ")[2] for line in stale if f"/{name}-" in line} == {"n2", "n3"}
        await sound(there, tmp_path, NEW.release)
        assert (await verify(there, tmp_path, OLD.release))[0] == 3

        assert policies == [
            one["metadata"] | one["spec"] for one in (await there.client.list(POLICIES)).items
        ]


async def conducted(there: Cluster, folder: Path, name: str) -> list[str]:
    """To its end. What ``verify`` says is wrong when the first node has its new version, and no other."""
    raw = await there.client.get(DAEMONSETS, name, SYSTEM)
    found = await survey(there.client, datetime.now(UTC), lambda _: None)
    (part,) = (one for one in found.components if one.name == name)
    gates = Gates(ready_within=60.0, soak=0.0, canary_soak=0.0)
    made = plans.make(found, part, raw["spec"]["updateStrategy"], NEW.release, NEW.images, gates)
    stale: list[str] = []

    async def judge(plan: Plan, node: str, soak: float) -> Verdict:
        if node == plan.nodes[0].node:
            code, wrong = await verify(there, folder, NEW.release)
            assert code == 3
            stale.extend(wrong)
        return Verdict("pass")

    logbook = Logbook(there.client)
    await logbook.begin(plans.sign(made))
    ended = await Conductor(there.client, logbook, judge, lambda _: None).run()
    assert ended.mode == "done", ended
    await there.ready(name, len(NAMES))
    return stale


async def sound(there: Cluster, folder: Path, release: str) -> None:
    """Once the controller has counted its pods, which takes it a moment."""
    deadline = time.monotonic() + 120
    while (told := await verify(there, folder, release)) != (0, []):
        assert time.monotonic() < deadline, told


async def verify(there: Cluster, folder: Path, release: str) -> tuple[int, list[str]]:
    """Exit code, and what does not run what it should."""
    words = ["verify", "--expect", release, "--kubeconfig", str(there.kubeconfig(folder)), "-o", "json"]
    done = await asyncio.to_thread(CliRunner().invoke, cli, words)
    found = json.loads(done.stdout)["rollout"]["findings"]
    return done.exit_code, [one["object"] for one in found if one["code"] == "TP7505"]
