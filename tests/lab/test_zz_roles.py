"""What a conductor and the watch Job ask of the API server is what they say they need: no less, and no more.

Each is a service account of its own in the shared lab, whose API server records by whom it was asked what.
Agents: test_zz_rights.py; takeover and handback: test_lab_canal.py; the Jobs of Rancher's
system-upgrade-controller: test_lab_upgrade_around.py. Nobody else has a token.
"""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from lab_objects import TOWPATH, Kubectl, deployment
from lab_rights import EVERYBODYS, TELLING, Account, Right, looked, of_rules, planned
from lab_upgrade import HELM_SKIP, NEW, helm_controller, stand_in, vanishing

from towpath.lab.client import LabClient
from towpath.upgrade.watch_job import NAME, NAMESPACE, Watch, manifests

pytestmark = pytest.mark.lab

QUICK = ("--soak", "0.2", "--canary-soak", "0.2", "--ready-within", "120", "--drain-within", "120")
# Whether probes pass on a machine that is busy is no matter here.
PROBED = ("--probes", "--level", "H2", "--budget", "600000")
# What only some moments ask for.
LATE: set[Right] = {("patch", "coordination.k8s.io", "leases")}  # the lease is renewed every few seconds


async def test_a_conductor_does_what_it_made_sure_of_and_nothing_else(
    lab: LabClient, kubectl: Kubectl, tmp_path: Path
) -> None:
    """Of a chart, with probes, a look at each node, and pods that move."""
    with stand_in(lab, kubectl, tmp_path) as upgrade:
        kubectl("apply", "-f", "-", stdin=deployment("moves", 3))
        kubectl("rollout", "status", "deployment/moves", "--timeout=240s")
        try:
            async with helm_controller(lab, kubectl):
                words = ("--to", NEW, "-f", str(upgrade.file), "--drain", "--read-nodes", *PROBED)
                code, told = await asyncio.to_thread(upgrade.run, "plan", *words, *QUICK, *HELM_SKIP)
                assert code == 0, told
                conductor = Account(lab, kubectl, "conductor")
                upgrade.kubeconfig = conductor.kubeconfig
                _, told = await asyncio.to_thread(upgrade.run, "apply", str(upgrade.file))
                needed = planned(upgrade.file)
                assert needed - LATE - conductor.asked() == set(), told
                looks = await asyncio.to_thread(looked, lab, kubectl)
                assert conductor.asked() - needed - looks == {EVERYBODYS, TELLING}, told
        finally:
            kubectl("delete", "deployment", "moves")


def test_the_watch_job_has_the_rights_it_uses_and_no_other(
    lab: LabClient, kubectl: Kubectl, tmp_path: Path
) -> None:
    """Its command, as the service account that it names."""
    image = "towpath/agent:1"
    told = manifests(Watch(image=image, length=1, every=1, probe_seconds=1, read_nodes=True))
    made = {one["kind"]: one for one in yaml.safe_load_all(told)}
    granted = of_rules(rule for kind in ("ClusterRole", "Role") for rule in made[kind]["rules"])
    (container,) = made["Job"]["spec"]["template"]["spec"]["containers"]
    account = Account(lab, kubectl, NAME, NAMESPACE)
    words = container["command"][container["command"].index("upgrade") :]
    kinds = [vanishing(group) for verb, group, resource in granted if resource == "*"]
    names = [f"crd/{kind['metadata']['name']}" for kind in kinds]
    for kind in kinds:
        # The API server takes kinds of this group from nobody who does not say so.
        approved = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api"}
        kind["metadata"]["annotations"] = approved
        kubectl("apply", "-f", "-", stdin=json.dumps(kind))
    try:
        kubectl("wait", "--for=condition=Established", *names, "--timeout=240s")
        with stand_in(lab, kubectl, tmp_path):
            command = [*TOWPATH, *words, "--kubeconfig", account.kubeconfig]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        kubectl("delete", *names)
    assert done.returncode in (0, 3), done.stderr
    everything = {(verb, group) for verb, group, resource in granted if resource == "*"}
    asked = {
        (v, group, "*" if (v, group) in everything else resource) for v, group, resource in account.asked()
    }
    assert (asked - granted, granted - asked) == (set(), set()), done.stdout + done.stderr
