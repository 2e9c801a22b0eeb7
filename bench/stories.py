"""Failure stories, staged one after the other in a lab whose network is Canal's.

    make bench-stories       the last line on stdout is JSON: seconds until each was caught

docs/failure-stories.md tells what they are. The new version's flanneld (a stand-in) misbehaves on the first
node that gets it; ``towpath upgrade apply`` has to find it by what the page names, give the node its old
version back, and touch no other. ``caught`` of how many. A rollout by itself would stop at none of them:
the pods are Ready, or become so again.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.upgrade import TOWPATH, say
from towpath.lab.client import LabClient

LAB, TO = "bench-stories", "v1.32.4+rke2r1"
DAEMONSET = ("daemonset", "-n", "kube-system", "rke2-canal")
FOLDER = "/var/lib/towpath-story"
FLANNELD = "/run/canal/flanneld --node $NODE_NAME --kubeconfig $KUBECONFIG"
FLANNELD += " --net-conf /etc/kube-flannel/net-conf.json"
NAT = "/usr/sbin/iptables-nft -w -t nat"
CHAIN = "FLANNEL-POSTRTG"
SKIP = [word for number in (1, 2, 3, 4, 5, 7, 8, 26, 27) for word in ("--skip", str(number))]


OTHERS = '{"cniVersion":"0.3.1","name":"multus","type":"multus-of-another-version"}'
IPSET = "ipset v7.11: Syntax error: cannot parse 'tcp'"


class Story(NamedTuple):
    """``says``: is in the verdict; ``first``: what the first new pod does; ``after``: what mends its node."""

    issue: str
    says: str
    first: str
    after: str = "true"


STORIES = (
    Story("k3s#6047", "TP7330", f"{NAT} -F {CHAIN}; exec sleep 1000"),
    Story(
        "flannel#797",
        "TP7331",
        f"{NAT} -F {CHAIN}; {NAT} -A {CHAIN} -s 10.42.0.0/16 -j MASQUERADE; "
        f"{NAT} -A {CHAIN} -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN; exec sleep 1000",
    ),
    Story("flannel#1913", "TP7336", f"exec {FLANNELD} --rewrites"),
    Story(
        "calico#5760",
        "TP7323",
        f"exec {FLANNELD} --backend legacy",
        "for t in nat filter; do iptables-legacy -t $t -F; ip6tables-legacy -t $t -F; done",
    ),
    Story(
        "flannel#1795",
        "TP733",  # by the node itself and by its peers
        "ip link set flannel.1 address 02:00:00:00:99:99; exec sleep 1000",
    ),
    Story(
        "rke2#4568",  # Ready, and no new pod can be attached
        "has no address",
        f"echo '{OTHERS}' > /net.d/00-multus.conf; exec {FLANNELD}",
        "rm -f /etc/cni/net.d/00-multus.conf",
    ),
    Story("rke2#10494", "started again", "sleep 1; exit 1"),
    Story("rke2#11130", "Syntax error", f'echo "{IPSET}"; exec {FLANNELD}'),
)


class Stage:
    """The lab, and what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.client, self.folder = LabClient(LAB), folder
        self._environment = {**os.environ, "KUBECONFIG": self.client.kubeconfig}

    def run(self, *words: str, ok: tuple[int, ...] = (0,)) -> str:
        """A command; what it says. RuntimeError for another exit code."""
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def set(self, story: Story) -> None:
        """From now on the first new pod misbehaves."""
        script = '[ -e /story/first ] || echo "$POD" > /story/first; [ "$(cat /story/first)" = "$POD" ] || '
        script += f"exec {FLANNELD}; {story.first}"
        container = {
            "name": "kube-flannel",
            "command": ["sh", "-c", script],
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [
                {"name": "story", "mountPath": "/story"},
                {"name": "net-d", "mountPath": "/net.d"},
            ],
        }
        folders = {"story": FOLDER, "net-d": "/etc/cni/net.d"}
        volumes = [
            {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
            for name, path in folders.items()
        ]
        template = {"spec": {"containers": [container], "volumes": volumes}}
        self.patch({"template": template})

    def patch(self, spec: dict[str, Any]) -> None:
        """The DaemonSet."""
        self.run("kubectl", "patch", *DAEMONSET, "--type=strategic", "-p", json.dumps({"spec": spec}))

    def on(self, node: str, script: str) -> None:
        """On a node, in its network, whatever it says."""
        words = (*TOWPATH, "lab", "exec", "--name", LAB, node, "--", "sh", "-c", script)
        subprocess.run(words, capture_output=True, check=False)


def staged(stage: Stage, story: Story) -> dict[str, Any]:
    """Seconds from the replacement of the pod to the verdict, and whether it was as the page says."""
    say(f"{story.issue}: {story.first[:60]}…")
    file = stage.folder / "plan.json"
    plan = ("--to", TO, "-f", str(file), "--no-probes", "--no-pull", "--soak", "1", "--canary-soak", "2")
    within = ("--ready-within", "40", "--sandbox-within", "20", "--churn", "11")
    stage.run(*TOWPATH, "upgrade", "plan", *plan, *within, *SKIP)
    stage.set(story)
    told = stage.run(*TOWPATH, "upgrade", "apply", str(file), ok=(0, 4))
    report = json.loads(stage.run(*TOWPATH, "upgrade", "report", "-o", "json"))
    records = report["records"]
    touched = next(record["at"] for record in records if record["event"] == "touch")
    failed = [record for record in records if record["event"] == "failed"]
    hurt = {record["node"] for record in records if record["event"] == "touch"}
    stage.run(*TOWPATH, "upgrade", "abort", ok=(0, 4))
    first = json.loads(file.read_bytes())["nodes"][0]["node"]
    stage.on(first, f"{story.after}; rm -rf {FOLDER}")
    caught = bool(failed) and story.says in failed[0]["text"] and hurt == {first}
    if not caught:
        say(f"not caught by {story.says}: {failed or told[-400:]}")
    return {"after_s": round(failed[0]["at"] - touched, 1) if failed else None, "caught": caught}


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="towpath-bench-") as runtime:
        folder = Path(runtime)
        folder.chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = runtime
        begun = time.time()
        up = [*TOWPATH, "lab", "up", "--name", LAB, "--nodes", "2", "--cni", "canal"]
        subprocess.run(up, check=True, stdout=sys.stderr)
        try:
            stage = Stage(folder)
            stage.patch({"updateStrategy": {"$retainKeys": ["type"], "type": "OnDelete"}})
            found = {story.issue: staged(stage, story) for story in STORIES}
        finally:
            subprocess.run([*TOWPATH, "lab", "down", "--name", LAB], check=True, stdout=sys.stderr)
    say(f"{time.time() - begun:.0f} s")
    line = {"bench": "stories", "caught": sum(one["caught"] for one in found.values()), "of": len(found)}
    print(json.dumps({**line, **{issue: one["after_s"] for issue, one in found.items()}}))


if __name__ == "__main__":
    main()
