"""A pod network that no release of RKE2 or Towpath brings: any DaemonSet, by its name and new tags."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conducted_cluster import Cluster, cluster

from towpath.cli.exit import CliError
from towpath.cli.main import cli
from towpath.kube.kinds import DAEMONSETS, NAMESPACES, Raw

pytestmark = pytest.mark.lab

SPACE, NAME = "network", "speaker"
LABELS = {"app": NAME}
TEMPLATE = {
    "metadata": {"labels": LABELS},
    "spec": {
        "hostNetwork": True,
        "initContainers": [{"name": "install", "image": "example.org/net/speaker-cni:v1"}],
        "containers": [
            {"name": "speaker", "image": "example.org/net/speaker:v1"},
            {"name": "metrics", "image": "example.org/metrics:v7"},
        ],
    },
}
DAEMONSET: Raw = {
    "metadata": {"name": NAME, "namespace": SPACE},
    "spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE},
}
BARE = ("--no-pull", "--no-probes", "--no-read-nodes")
TAGS = ("--tag", "speaker=v2", "--tag", "speaker-cni=v2")


async def plan(there: Cluster, folder: Path, *arguments: str) -> tuple[int, str]:
    return await upgrade(there, folder, "plan", *BARE, "-f", str(folder / "plan.json"), *arguments)


async def upgrade(there: Cluster, folder: Path, verb: str, *arguments: str) -> tuple[int, str]:
    words = ["upgrade", verb, "--kubeconfig", str(there.kubeconfig(folder)), *arguments]
    done = await asyncio.to_thread(CliRunner().invoke, cli, words)
    failed = done.exception
    return (failed.exit_code, str(failed)) if isinstance(failed, CliError) else (done.exit_code, done.output)


async def test_any_daemonset_is_planned_and_conducted(tmp_path: Path) -> None:
    """Its nodes have no network, so that the first new pod gets no address: the node is given back."""
    async with cluster(tmp_path, "n1", "n2") as there:
        await there.client.create(NAMESPACES.raw(), {"metadata": {"name": SPACE}})
        await there.client.create(DAEMONSETS, DAEMONSET, SPACE)
        await there.ready(NAME, 2, SPACE)
        quick = ("--soak", "0", "--canary-soak", "0", "--sandbox-within", "1")
        named = ("--to", "v2", *TAGS, "--daemonset", f"{SPACE}/{NAME}")
        code, told = await plan(there, tmp_path, *named, *quick)
        assert code == 0, told
        made = json.loads((tmp_path / "plan.json").read_text())
        assert (made["namespace"], made["daemonset"], made["target"]) == (SPACE, NAME, "v2")
        assert made["images"] == {
            "install": ["example.org/net/speaker-cni:v1", "example.org/net/speaker-cni:v2"],
            "speaker": ["example.org/net/speaker:v1", "example.org/net/speaker:v2"],
            "metrics": ["example.org/metrics:v7"] * 2,
        }
        assert [step["node"] for step in made["nodes"]] == ["n1", "n2"]
        code, told = await upgrade(there, tmp_path, "apply", str(tmp_path / "plan.json"))
        assert (code, "paused: a new pod (towpath-gate-n1) has no address after 1 s" in told) == (4, True), (
            told
        )
        code, told = await upgrade(there, tmp_path, "status", "-o", "json")
        nodes = json.loads(told)["nodes"]
        assert [(one["has"], one["state"]) for one in nodes] == [("old", "restored"), ("old", "waiting")]
        code, told = await plan(there, tmp_path, "--to", "v2", "--tag", "speaker", "--daemonset", NAME)
        assert (code, "IMAGE=TAG is wanted" in told) == (2, True), told
        code, told = await plan(there, tmp_path, "--to", "v2", *TAGS)
        assert (code, "no DaemonSet here has images of that release" in told) == (7, True), told
