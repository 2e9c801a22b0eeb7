"""The upgrade command at a lab with a stand-in for ``rke2-canal``."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from lab_objects import TOWPATH, Kubectl, eventually, get

from towpath.catalogue import load
from towpath.kube.client import Client
from towpath.kube.config import from_files
from towpath.lab import canal, helm
from towpath.lab.client import LabClient

OLD, NEW, LATER = "v1.32.1+rke2r1", "v1.32.2+rke2r1", "v1.32.4+rke2r1"
DAEMONSET = ("daemonset", "-n", "kube-system", "rke2-canal")
QUICK = ("--soak", "0.5", "--canary-soak", "0.5", "--ready-within", "120")
# The lab's nodes are of no RKE2 release, and the lab has neither helm nor etcd: these cannot be told there.
SKIP = [word for number in (1, 2, 3, 4, 5, 7, 8, 26) for word in ("--skip", str(number))]
HELM_SKIP = [word for number in (1, 2, 3, 4, 5, 8, 26) for word in ("--skip", str(number))]


class Upgrade:
    """The command, at the shared lab."""

    def __init__(self, lab: LabClient, folder: Path) -> None:
        self.file = folder / "plan.json"
        self.kubeconfig = lab.kubeconfig  # of whoever gives the command

    def command(self, verb: str, *arguments: str) -> list[str]:
        # Probes and looks at nodes have tests of their own (test_lab_upgrade_measured.py).
        quick = ("--churn", "0.2") if verb == "plan" else ()
        if verb == "plan" and not {"--probes", "--read-nodes"} & set(arguments):
            quick = (*quick, "--no-probes")
        if verb == "plan" and "--pull" not in arguments:
            quick = (*quick, "--no-pull")
        return [*TOWPATH, "upgrade", verb, "--kubeconfig", self.kubeconfig, *quick, *arguments]

    def run(self, verb: str, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(verb, *arguments),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.file.parent,
        )
        return done.returncode, done.stdout + done.stderr

    def plan(self, target: str = NEW, *more: str) -> None:
        code, told = self.run("plan", "--to", target, "-f", str(self.file), *QUICK, *SKIP, *more)
        assert code == 0, told


@contextmanager
def stand_in(lab: LabClient, kubectl: Kubectl, folder: Path) -> Iterator[Upgrade]:
    """``rke2-canal`` of the old release, as long as it is wanted."""
    made = canal.objects(load.builtin(), OLD)
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    eventually(lambda: get(kubectl, *DAEMONSET)["status"].get("numberReady") == 3)
    yield Upgrade(lab, folder)
    kubectl("delete", *DAEMONSET, "--wait=true")
    kubectl("delete", "configmap", "-n", "kube-system", "towpath-upgrade", "--ignore-not-found")
    eventually(lambda: not get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"])


@asynccontextmanager
async def helm_controller(lab: LabClient, kubectl: Kubectl) -> AsyncIterator[None]:
    """The stand-in, with the chart of the old release; a HelmChart outlives its controller for nobody."""
    known = load.builtin()
    await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=json.dumps(helm.definition()))
    await asyncio.to_thread(
        kubectl, "wait", "--for=condition=Established", "crd/helmcharts.helm.cattle.io", "--timeout=240s"
    )
    async with Client(from_files([Path(lab.kubeconfig)])) as client:
        running = asyncio.create_task(helm.run(client, known))
        await asyncio.to_thread(kubectl, "apply", "-f", "-", stdin=json.dumps(helm.chart(known, OLD)))
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.to_thread(kubectl, "delete", "crd", "helmcharts.helm.cattle.io")


def flannels(kubectl: Kubectl) -> dict[str, str]:
    """Node to the tag of flannel that its pod is of; a pod that the scheduler has not seen is on none."""
    pods = get(kubectl, "pod", "-n", "kube-system", "-l", "k8s-app=canal")["items"]
    return {
        pod["spec"]["nodeName"]: next(
            c["image"].rpartition(":")[2] for c in pod["spec"]["containers"] if c["name"] == "kube-flannel"
        )
        for pod in pods
        if "nodeName" in pod["spec"]
    }


def strategy(kubectl: Kubectl) -> str:
    return str(get(kubectl, *DAEMONSET)["spec"]["updateStrategy"]["type"])


def vanishing(group: str) -> dict[str, Any]:
    """A kind of Calico's, as rke2#10168 lost it two days after an upgrade."""
    made = helm.definition()
    names = {
        "kind": "Vanishing",
        "listKind": "VanishingList",
        "plural": "vanishings",
        "singular": "vanishing",
    }
    made["metadata"]["name"] = f"vanishings.{group}"
    made["spec"] |= {"group": group, "names": names}
    return made


BEFORE, AFTER = "v0.26.3-build20250108", "v0.26.4-build20250218"
