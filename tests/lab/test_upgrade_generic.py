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
    words = ["upgrade", "plan", "--kubeconfig", str(there.kubeconfig(folder)), *BARE]
    words += ["-f", str(folder / "plan.json"), *arguments]
    done = await asyncio.to_thread(CliRunner().invoke, cli, words)
    failed = done.exception
    return (failed.exit_code, str(failed)) if isinstance(failed, CliError) else (done.exit_code, done.output)


async def test_any_daemonset_is_planned(tmp_path: Path) -> None:
    async with cluster(tmp_path, "n1", "n2") as there:
        await there.client.create(NAMESPACES.raw(), {"metadata": {"name": SPACE}})
        await there.client.create(DAEMONSETS, DAEMONSET, SPACE)
        await there.ready(NAME, 2, SPACE)
        code, told = await plan(there, tmp_path, "--to", "v2", *TAGS, "--daemonset", f"{SPACE}/{NAME}")
        assert code == 0, told
        made = json.loads((tmp_path / "plan.json").read_text())
        assert (made["namespace"], made["daemonset"], made["target"]) == (SPACE, NAME, "v2")
        assert made["images"] == {
            "install": ["example.org/net/speaker-cni:v1", "example.org/net/speaker-cni:v2"],
            "speaker": ["example.org/net/speaker:v1", "example.org/net/speaker:v2"],
            "metrics": ["example.org/metrics:v7"] * 2,
        }
        assert [step["node"] for step in made["nodes"]] == ["n1", "n2"]
        code, told = await plan(there, tmp_path, "--to", "v2", "--tag", "speaker", "--daemonset", NAME)
        assert (code, "IMAGE=TAG is wanted" in told) == (2, True), told
        code, told = await plan(there, tmp_path, "--to", "v2", *TAGS)
        assert (code, "no DaemonSet here has images of that release" in told) == (7, True), told
