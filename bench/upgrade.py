"""What a conducted upgrade costs, and how long what comes before it takes in large clusters.

    make bench-upgrade                the last line on stdout is JSON
    make bench-upgrade ONLY=twin      a part of it: roll, preflight, twin

``total_s``, ``per_node_s``, ``lost``, ``level``: the network of a lab of ten nodes is taken to another
version by ``towpath upgrade apply`` under probes of every path and kind, while pods and policies come
and go; the probe's own control window is before it. The same program runs under both versions' names:
what is measured is the conductor and the replacement of agents. ``rollout_s`` is the peer: ``kubectl
rollout restart``, which has no gates. ``preflight_1000_s`` and ``…_mb``: ``towpath preflight`` of an
inventory of 1 000 nodes that were looked at themselves (every one with 999 peers in its tunnel's
tables, and three findings of its own), 50 000 pods and 5 000 policies, with the interpreter's start and
the file's reading. ``twin_50_s``: from an archive of 50 nodes, 500 pods and 100 policies to a lab with
all of them Ready; null if the lab gives up. ``twin_50_cpu_s``: the lab's processor time until then, which is
much the same on a busy machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from bench import processor
from bench import upgrade_worlds as worlds
from towpath.catalogue import load
from towpath.lab import twin as twins
from towpath.lab import twin_up
from towpath.lab.client import LabClient
from towpath.lab.rundir import ABOUT, About, LabError

TOWPATH = (sys.executable, "-m", "towpath")
NODES = 10


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def preflight(folder: Path) -> dict[str, Any]:
    """Seconds and MB of the command, with all 1 000 nodes."""
    file = folder / "inventory.json"
    file.write_bytes(msgspec.json.encode(worlds.inventory(load.builtin(), 1000, 50_000, 5000)))
    say(f"preflight of an inventory of {file.stat().st_size >> 20} MiB")
    begun = time.monotonic()
    command = [*TOWPATH, "preflight", "--to", worlds.ENDS, "-f", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.monotonic() - begun
    if done.returncode not in (0, 3, 6):
        raise RuntimeError(f"preflight: exit code {done.returncode}: {done.stderr}")
    say(done.stdout.strip().splitlines()[-1])
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"preflight_1000_s": round(took, 1), "preflight_1000_mb": round(megabytes)}


def twin_of_50(_: Path) -> dict[str, Any]:
    """Seconds until the twin is there with all its pods Ready."""
    made = twins.twin("bench-twin", twins.from_archive(worlds.archive(50, 500, 100)))
    begun = time.monotonic()
    said = 0.0

    def progress(line: str) -> None:
        nonlocal said
        if (now := time.monotonic() - begun) > said + 1:
            said = now
            say(f"{now:5.1f} s  {line}")

    try:
        with twin_up.running(made, progress) as there:
            took = time.monotonic() - begun
            if there.wrong:
                raise LabError(f"{len(there.wrong)} of its objects: {there.wrong[0]}")
            about = msgspec.json.decode((there.kubeconfig.parent / ABOUT).read_bytes(), type=About)
            spent = processor.seconds_by_kind(about.keeper)
    except LabError as late:
        say(f"twin: {late}")
        return {"twin_50_s": None}
    say(f"processor time of the twin: {spent}")
    return {"twin_50_s": round(took, 1), "twin_50_cpu_s": round(sum(spent.values()))}


class Comings(threading.Thread):
    """Pods and policies that come and go until ``stop``."""

    def __init__(self, kubeconfig: str) -> None:
        super().__init__(daemon=True)
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self._over = threading.Event()
        self.turns = 0

    def run(self) -> None:
        """A policy, three pods more, three pods fewer, no policy; again."""
        while not self._over.is_set():
            self.kubectl("apply", "-f", "-", stdin=json.dumps(_closing(self.turns)))
            self.kubectl("scale", "deployment/comings", f"--replicas={6 if self.turns % 2 else 3}")
            if self.turns:
                self.kubectl("delete", "networkpolicy", f"comings-{self.turns - 1}")
            self.turns += 1
            self._over.wait(0.5)

    def kubectl(self, *words: str, stdin: str = "") -> None:
        """Quietly; what fails is said."""
        done = subprocess.run(
            ["kubectl", *words],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            say(f"kubectl {words[0]}: {done.stderr.strip()}")

    def stop(self) -> None:
        """After the turn that is under way."""
        self._over.set()
        self.join(30)


def _closing(turn: int) -> dict[str, Any]:
    """Closes one port of the pods that come and go."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"comings-{turn}"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "comings"}},
            "ingress": [{"ports": [{"port": 8080}]}],
        },
    }


def upgrade(folder: Path) -> dict[str, Any]:
    """The figures of the conducted upgrade, and its peer's."""
    subprocess.run(
        [*TOWPATH, "lab", "up", "--name", "bench-upgrade", "--nodes", str(NODES)],
        check=True,
        stdout=sys.stderr,
    )
    client = LabClient("bench-upgrade")
    comings = Comings(client.kubeconfig)
    at = ("--kubeconfig", client.kubeconfig)
    try:
        comings.kubectl(
            "create", "deployment", "comings", "--image=towpath/echo", "--port=8080", "--replicas=3"
        )
        plan, report = folder / "plan.json", folder / "report.html"
        made = [*TOWPATH, "upgrade", "plan", "--to", "v0.2.0", "--no-probes", "-f", str(plan), *at]
        subprocess.run([*made, "--soak", "1", "--canary-soak", "2"], check=True, stdout=sys.stderr)
        comings.start()
        seen = probed(
            folder, " ".join([*TOWPATH, "upgrade", "apply", str(plan), "--report", str(report), *at]), at
        )
        shown = subprocess.run(
            [*TOWPATH, "upgrade", "report", "-o", "json", *at], check=True, capture_output=True
        ).stdout
        found = json.loads(shown)
        if found["mode"] != "done":
            raise RuntimeError(f"the upgrade ended {found['mode']}: {found['records'][-1]}")
        begun = time.monotonic()
        comings.kubectl("rollout", "restart", "-n", "kube-system", "daemonset/towpath")
        comings.kubectl("rollout", "status", "-n", "kube-system", "daemonset/towpath", "--timeout=120s")
        rollout = time.monotonic() - begun
        comings.stop()
        say(f"{comings.turns} times pods and policies came and went")
    finally:
        comings.stop() if comings.is_alive() else None
        subprocess.run([*TOWPATH, "lab", "down", "--name", "bench-upgrade"], check=True)
    return {
        "level": seen["judgement"]["level"],
        "lost": seen["total"]["lost"],
        "asked": seen["total"]["sent"],
        "total_s": round(found["seconds"], 1),
        "per_node_s": round(found["seconds"] / NODES, 2),
        "rollout_s": round(rollout, 1),
    }


def probed(folder: Path, command: str, at: tuple[str, ...]) -> dict[str, Any]:
    """The probe's result of what happens while ``command`` runs."""
    file = folder / "probe.json"
    words = ["probe", *at, "--slower", "3", "--control", "5", "--json", str(file)]
    subprocess.run([*TOWPATH, *words, "--while", command], check=False, stdout=sys.stderr, stderr=sys.stderr)
    result: dict[str, Any] = json.loads(file.read_bytes())
    return result


PARTS = {"preflight": preflight, "roll": upgrade, "twin": twin_of_50}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="bench.upgrade")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    only = parser.parse_args().only.split(",")
    if unknown := [name for name in only if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        folder = Path(runtime)
        folder.chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        figures: dict[str, Any] = {"bench": "upgrade"}
        for name, part in PARTS.items():
            if name in only:
                figures |= (found := part(folder))
                say(f"{name}: {found}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
