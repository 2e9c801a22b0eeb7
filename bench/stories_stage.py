"""The lab in which failure stories are staged, and what can be done to it."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.upgrade import TOWPATH
from towpath.lab.client import LabClient

LAB, FROM, TO = "bench-stories", "v1.32.1+rke2r1", "v1.32.4+rke2r1"
NODES = ("n1", "n2")
SYSTEM = ("-n", "kube-system")
DAEMONSET = ("daemonset", *SYSTEM, "rke2-canal")
FOLDER = "/var/lib/towpath-story"  # all nodes of a lab have the same
FLANNELD = "/run/canal/flanneld --node $NODE_NAME --kubeconfig $KUBECONFIG"
FLANNELD += " --net-conf /etc/kube-flannel/net-conf.json"
NAT = "/usr/sbin/iptables-nft -w -t nat"
CHAIN = "FLANNEL-POSTRTG"
# The lab's nodes are of no RKE2 release, and the lab has neither helm nor etcd: these cannot be told there.
SKIP = [word for number in (1, 2, 3, 4, 5, 7, 8, 26, 27) for word in ("--skip", str(number))]

_RULES = "for t in iptables ip6tables; do /usr/sbin/$t-nft-save -t nat | grep -e FLANNEL; done"
_OWN = ("annotations", "labels", "name", "namespace")
_WITHIN = 120.0
_LATE = 3.0  # a flanneld that was stopped deletes its rules a second later (flannel#2237), beside the new one
Raw = dict[str, Any]


class Stage:
    """``kubeconfig``: the lab's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kubeconfig = folder, LabClient(LAB).kubeconfig
        self.environment = {**os.environ, "KUBECONFIG": self.kubeconfig}
        self._canal = self.get(*DAEMONSET)
        metadata = {key: value for key, value in self._canal["metadata"].items() if key in _OWN}
        spec = {**self._canal["spec"], "updateStrategy": {"type": "OnDelete"}}
        self._canal = {**self._canal, "metadata": metadata, "spec": spec}
        self._canal.pop("status", None)
        self.apply(self._canal, verb="replace")
        self.until(lambda: all(self.on(node, _RULES).count("-j FLANNEL-POSTRTG") == 2 for node in NODES))
        self._rules = {node: self.on(node, _RULES) for node in NODES}

    def run(self, *words: str, ok: tuple[int, ...] = (0,), stdin: str = "") -> str:
        """A command; what it says. RuntimeError for another exit code."""
        done = subprocess.run(
            words, env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def towpath(self, *words: str, ok: tuple[int, ...] = (0,)) -> str:
        """The command under test."""
        return self.run(*TOWPATH, *words, ok=ok)

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """Upstream's."""
        return self.run("kubectl", *words, stdin=stdin)

    def get(self, *words: str) -> Raw:
        """One object, or a list."""
        found: Raw = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found

    def apply(self, *objects: Raw, verb: str = "apply") -> None:
        """``verb``: of kubectl."""
        for one in objects:
            self.kubectl(verb, "-f", "-", stdin=json.dumps(one))

    def on(self, node: str, script: str) -> str:
        """On a node, in its network; what it says, whatever its exit code."""
        words = (*TOWPATH, "lab", "exec", "--name", LAB, node, "--", "sh", "-c", script)
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def first(self, script: str, name: str = "kube-flannel", mounts: dict[str, str] | None = None) -> None:
        """From now on the first new pod's container ``name`` does this, and every other what it always does.

        ``mounts``: path in the Canal containers to the folder or file of the nodes that is there.
        """
        made = json.loads(json.dumps(self._canal))
        spec = made["spec"]["template"]["spec"]
        folders = {"/story": FOLDER, "/net.d": "/etc/cni/net.d", **(mounts or {})}
        spec["volumes"] += [
            {"name": f"story-{number}", "hostPath": {"path": path}}
            for number, path in enumerate(folders.values())
        ]
        for one in (*spec["initContainers"], *spec["containers"]):
            one["volumeMounts"] += [
                {"name": f"story-{number}", "mountPath": path} for number, path in enumerate(folders)
            ]
            if one["name"] == name:
                usual = "true" if one in spec["initContainers"] else f"exec {FLANNELD}"
                words = (
                    '[ -e /story/first ] || echo "$POD" > /story/first; [ "$(cat /story/first)" = "$POD" ]'
                )
                one["command"] = ["sh", "-c", f"{words} || {usual}; {script}"]
                one["env"].append({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        self.on(NODES[0], f"mkdir -p {FOLDER}")
        self.apply(made, verb="replace")

    def whole(self, mend: str = "true") -> None:
        """Canal as it was, with new pods: ``mend`` is done on every node before they come."""
        self.apply(self._canal, verb="replace")
        for node in NODES:
            self.on(node, f"{mend}; rm -rf {FOLDER}")
        self.kubectl("delete", "pod", *SYSTEM, "-l", "k8s-app=canal", "--wait=true")
        self.until(self._rolled)
        time.sleep(_LATE)
        self.until(lambda: all(self.on(node, _RULES) == self._rules[node] for node in NODES))

    def ready(self) -> bool:
        """Whether every node's pod is, of whichever version."""
        return (self.get(*DAEMONSET).get("status") or {}).get("numberReady") == len(NODES)

    def _rolled(self) -> bool:
        raw = self.get(*DAEMONSET)
        status = raw.get("status") or {}
        seen = status.get("observedGeneration") == raw["metadata"]["generation"]
        counts = [status.get(key, 0) for key in ("numberReady", "updatedNumberScheduled")]
        return seen and counts == [len(NODES)] * 2

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        """Raises RuntimeError when it is never so."""
        deadline = time.monotonic() + _WITHIN
        while not holds():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the lab's network is not whole after {_WITHIN:.0f} s")
            time.sleep(0.2)
