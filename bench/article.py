"""The upgrade that an article describes, and the migration, conducted in a lab under probes: what each costs.

    make bench-article       the last line on stdout is JSON

A lab of two nodes whose network is Canal's (stand-ins) goes from v1.32.1+rke2r1 to v1.32.2+rke2r1 (Calico
3.29.1 → 3.29.2, flannel 0.26.3 → 0.26.4), then to Towpath and back, each by ``towpath upgrade apply``, while
a policy closes pods to each other. For each: ``level``, ``lost``, ``opened`` (denied questions that were
answered), ``asked``, seconds. ``policies_same``: the policy's object and its measured verdicts are, after all
of it, what they were.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.stories import SKIP
from bench.upgrade import TOWPATH, say
from towpath.install.migration import without_taken
from towpath.lab.client import LabClient

LAB, ENDS = "bench-article", "v1.32.2+rke2r1"
STEPS = {
    "canal_to_canal": ("--to", ENDS, "--daemonset", "rke2-canal", "--no-pull", "--churn", "2", *SKIP),
    "canal_to_towpath": ("--to", "towpath"),
    "towpath_to_canal": ("--to", "canal"),
}
DAEMONSET = ("daemonset", "-n", "kube-system", "rke2-canal")
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed"},
    "spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"]},
}


class Lab:
    """The cluster, in the commands that an operator gives."""

    def __init__(self, folder: Path) -> None:
        self.client, self.folder = LabClient(LAB), folder
        self.at = ("--kubeconfig", self.client.kubeconfig)

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """What it says. Raises CalledProcessError."""
        environment = {**os.environ, "KUBECONFIG": self.client.kubeconfig}
        return subprocess.run(
            ["kubectl", *words], input=stdin, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def prepare(self) -> None:
        """Pods that a policy closes, and Canal as docs/guides/migrate-from-canal.md wants it."""
        self.kubectl("create", "deployment", "closed", "--image=towpath/echo", "--port=8080", "--replicas=4")
        self.kubectl("rollout", "status", "deployment/closed", "--timeout=120s")
        self.kubectl("apply", "-f", "-", stdin=json.dumps(POLICY))
        patch = {"spec": {"template": {"spec": {"affinity": without_taken()}}}}
        self.kubectl("patch", *DAEMONSET, "--type=merge", "-p", json.dumps(patch))
        self.kubectl("rollout", "status", "-n", "kube-system", "daemonset/rke2-canal", "--timeout=180s")

    def policies(self) -> tuple[str, str]:
        """Objects, and who reaches whom (after a moment: a change takes Canal its time)."""
        found = json.loads(self.kubectl("get", "networkpolicy", "-A", "-o", "json"))["items"]
        objects = [(one["metadata"]["uid"], one["spec"]) for one in found]
        pods = json.loads(self.kubectl("get", "pods", "-l", "app=closed", "-o", "json"))["items"]
        to = [
            {"addr": ip["ip"], "port": 8080, "proto": "tcp"} for pod in pods for ip in pod["status"]["podIPs"]
        ]
        asked = [{"from": {"pod": f"default/{pod['metadata']['name']}"}, "to": to} for pod in pods]
        answers = self.client.call("run-in", probes=asked, timeout=2)
        verdicts = [[one["ok"] for one in answer["to"]] for answer in answers]
        return json.dumps(objects, sort_keys=True), json.dumps(verdicts)

    def again(self, before: tuple[str, str]) -> bool:
        """Whether policies are as before, within a minute: what has just changed hands takes a moment."""
        deadline = time.monotonic() + 60
        while self.policies() != before:
            if time.monotonic() > deadline:
                return False
            time.sleep(1)
        return True

    def plan(self, *words: str) -> None:
        """Within a minute: preflight sees it when what Canal has just started still writes its rules."""
        deadline = time.monotonic() + 60
        command = [*TOWPATH, "upgrade", "plan", *words, *self.at]
        while subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("preflight refuses")
            time.sleep(2)

    def conducted(self, name: str, plan: tuple[str, ...]) -> dict[str, Any]:
        """One step under probes."""
        say(name)
        file, result = self.folder / f"{name}.json", self.folder / f"{name}.probe.json"
        quick = ("--no-probes", "--soak", "1", "--canary-soak", "2", "-f", str(file))
        self.plan(*plan, *quick)
        report = ("--report", str(self.folder / f"{name}.html"))
        command = " ".join([*TOWPATH, "upgrade", "apply", str(file), *report, *self.at])
        begun = time.monotonic()
        words = ("probe", *self.at, "--slower", "3", "--control", "5", "--json", str(result))
        subprocess.run(
            [*TOWPATH, *words, "--while", command], check=False, stdout=sys.stderr, stderr=sys.stderr
        )
        found = json.loads(result.read_bytes())
        shown = [*TOWPATH, "upgrade", "report", "-o", "json", *self.at]
        how = json.loads(subprocess.run(shown, check=True, capture_output=True).stdout)
        if how["mode"] != "done":
            raise RuntimeError(f"{name} ended {how['mode']}: {how['records'][-1]}")
        total = found["total"]
        return {
            "level": found["judgement"]["level"],
            "lost": total["lost"],
            "opened": total["opened"],
            "asked": total["sent"],
            "conducted_s": round(how["seconds"], 1),
            "with_probes_s": round(time.monotonic() - begun, 1),
        }


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        folder = Path(runtime)
        folder.chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        up = [*TOWPATH, "lab", "up", "--name", LAB, "--nodes", "2", "--cni", "canal"]
        subprocess.run(up, check=True, stdout=sys.stderr)
        try:
            lab = Lab(folder)
            lab.prepare()
            before = lab.policies()
            steps = {name: lab.conducted(name, plan) for name, plan in STEPS.items()}
            same = lab.again(before)
        finally:
            subprocess.run([*TOWPATH, "lab", "down", "--name", LAB], check=True, stdout=sys.stderr)
    print(json.dumps({"bench": "article", **steps, "policies_same": same}))


if __name__ == "__main__":
    main()
