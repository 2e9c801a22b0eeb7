"""A stand-in for ``rke2-canal``, from v1.32.1+rke2r1 to v1.32.2+rke2r1 and back, with what goes wrong."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_objects import Kubectl, eventually, get
from lab_upgrade import AFTER, BEFORE, DAEMONSET, LATER, NEW, OLD, SKIP, Upgrade, flannels, stand_in, strategy

from towpath.catalogue import load
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.kube.errors import NotFound
from towpath.kube.kinds import CONFIG_MAPS, LEASES
from towpath.lab import canal
from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab


@pytest.fixture
def upgrade(lab: LabClient, kubectl: Kubectl, tmp_path: Path) -> Iterator[Upgrade]:
    with stand_in(lab, kubectl, tmp_path) as command:
        yield command


def test_upgraded_verified_and_rolled_back(upgrade: Upgrade, kubectl: Kubectl) -> None:
    upgrade.plan(NEW, "--pull")
    pulled = json.loads(upgrade.file.read_text())
    assert pulled["digests"].keys() == {after for _, after in pulled["images"].values()}
    code, told = upgrade.run("apply", str(upgrade.file))
    assert code == 0, told
    assert set(flannels(kubectl).values()) == {AFTER} and strategy(kubectl) == "RollingUpdate"
    gates = ("pod", "-n", "kube-system", "-l", "app.kubernetes.io/name=towpath-gate")
    eventually(lambda: not get(kubectl, *gates)["items"])

    code, told = upgrade.run("status", "-o", "json")
    assert [node["state"] for node in json.loads(told)["nodes"]] == ["passed"] * 3
    before = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    code, told = upgrade.run("apply", str(upgrade.file))
    assert (code, "upgraded" in told) == (0, True), told
    after = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    assert {pod["metadata"]["uid"] for pod in after} == {pod["metadata"]["uid"] for pod in before}

    code, told = upgrade.run("rollback")
    assert code == 5, told
    assert set(flannels(kubectl).values()) == {BEFORE} and strategy(kubectl) == "RollingUpdate"
    code, told = upgrade.run("rollback")
    assert (code, "rolled back already" in told) == (7, True), told


def spoil(kubectl: Kubectl) -> None:
    """What runs from now on says in its log that its rules cannot be written."""
    line = "iptables-restore failed: exit status 4"
    command = ["sh", "-c", f"echo '{line}'; exec sleep 1000"]
    containers = [{"name": "kube-flannel", "command": command}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    kubectl("patch", *DAEMONSET, "--type=strategic", "-p", json.dumps(body))


def test_a_node_that_fails_is_mended_and_the_others_never_touched(upgrade: Upgrade, kubectl: Kubectl) -> None:
    """Ready, addresses given out, and yet the log says that nothing is in order."""
    before = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    names = {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in before}
    upgrade.plan()
    kubectl(
        "patch",
        *DAEMONSET,
        "--type=merge",
        "-p",
        '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}',
    )
    spoil(kubectl)
    code, told = upgrade.run("apply", str(upgrade.file))
    assert (code, "rules are not written" in told) == (4, True), told
    now = json.loads(upgrade.run("status", "-o", "json")[1])
    assert (now["mode"], [node["state"] for node in now["nodes"]]) == (
        "paused",
        ["restored", "waiting", "waiting"],
    )
    assert set(flannels(kubectl).values()) == {BEFORE} and strategy(kubectl) == "OnDelete"
    after = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    touched = {
        pod["spec"]["nodeName"] for pod in after if names[pod["spec"]["nodeName"]] != pod["metadata"]["name"]
    }
    assert touched == {now["nodes"][0]["node"]}


async def test_killed_at_every_step_it_goes_on(upgrade: Upgrade, kubectl: Kubectl, lab: LabClient) -> None:
    """SIGKILL as soon as a record is written, again and again, until a run ends before it is killed."""
    upgrade.plan()
    kills = 0
    async with Client(from_files([Path(lab.kubeconfig)])) as client:
        while kills < 40:
            have = await records(client)
            running = await asyncio.create_subprocess_exec(
                *upgrade.command("apply", str(upgrade.file)),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            ended = asyncio.create_task(running.wait())
            while await records(client) <= have:
                if ended.done():
                    break
                await asyncio.sleep(0.002)
            if ended.done():
                break
            running.kill()
            await ended
            kills += 1
            # As if the dead holder's time were over, which takes twenty seconds.
            spec = {"renewTime": "2020-01-01T00:00:00.000000Z"}
            await client.patch(LEASES, "towpath-upgrade", {"spec": spec}, "kube-system")
        assert kills >= 8 and await ended == 0
    assert set(flannels(kubectl).values()) == {AFTER} and strategy(kubectl) == "RollingUpdate"


async def records(client: Client) -> int:
    """How many are in the journal."""
    try:
        found = await client.get(CONFIG_MAPS, "towpath-upgrade", "kube-system")
    except NotFound:
        return 0
    return len(found["data"]["journal"].splitlines())


def test_paused_excluded_and_rolled_back(upgrade: Upgrade, kubectl: Kubectl) -> None:
    code, told = upgrade.run(
        "plan", "--to", NEW, "-f", str(upgrade.file), "--soak", "3", "--canary-soak", "200", *SKIP
    )
    assert code == 0, told
    running = subprocess.Popen(
        upgrade.command("apply", str(upgrade.file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(lambda: AFTER in flannels(kubectl).values())
    code, told = upgrade.run("apply", str(upgrade.file))
    assert (code, "TP7402" in told) == (7, True), told
    assert upgrade.run("pause")[0] == 0
    told, _ = running.communicate(timeout=300)
    assert (running.returncode, "paused" in told) == (4, True), told
    assert sorted(flannels(kubectl).values()).count(AFTER) == 1
    code, told = upgrade.run("rollback")
    assert code == 5, told
    assert set(flannels(kubectl).values()) == {BEFORE} and strategy(kubectl) == "RollingUpdate"


def test_what_is_refused(upgrade: Upgrade, kubectl: Kubectl, tmp_path: Path) -> None:
    code, told = upgrade.run("plan", "--to", NEW, "-f", str(upgrade.file))
    assert (code, "preflight refuses" in told) == (7, True), told
    code, told = upgrade.run("plan", "--to", OLD, "-f", str(upgrade.file), *SKIP)
    assert (code, "TP7404" in told) == (7, True), told
    upgrade.plan()
    made = canal.objects(load.builtin(), LATER, strategy="OnDelete")
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    code, told = upgrade.run("apply", str(upgrade.file))
    assert (code, "TP7401" in told and "no longer fits" in told) == (7, True), told
    edited = json.loads(upgrade.file.read_text())
    edited["nodes"] = edited["nodes"][1:]
    bad = tmp_path / "edited.json"
    bad.write_text(json.dumps(edited))
    code, told = upgrade.run("apply", str(bad))
    assert (code, "TP7404" in told and "was changed" in told) == (2, True), told
    code, told = upgrade.run("status")
    assert (code, "no upgrade was ever begun" in told) == (7, True), told
