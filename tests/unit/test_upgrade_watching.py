"""What is worse than before is a finding, what is not is none."""

from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from msgspec.structs import replace

from towpath.cli.exit import CliError
from towpath.cli.upgrade_watch import watch
from towpath.inventory.node_report import Flow
from towpath.upgrade.looking import _CPU, _MEMORY, load, quantity
from towpath.upgrade.watch_job import Watch, manifests
from towpath.upgrade.watching import NodeSeen, PodSeen, Sample, Traffic, findings

POD = PodSeen(node="n1", name="kube-system/p", ready=True, restarts=1, memory_mb=100, cpu_milli=100)
TRAFFIC = Traffic(level="H0", sent=1000, lost=0, gap_ms=0, opened=0, p999_ms=4)
FLOW = Flow(seconds=5, segments=10_000, resent=10, dropped=0, tunnel_bytes=5_000_000)
NODE = NodeSeen(node="n1", flow=FLOW, wrong=(("TP7328", "rp_filter is 2"),))
BEFORE = Sample(at=1, pods=(POD,), objects={"ipamblocks.x": 4, "tiers.x": 1}, traffic=TRAFFIC, nodes=(NODE,))


def pods(**changed: object) -> Sample:
    return replace(BEFORE, pods=(replace(POD, **changed),))


def traffic(**changed: object) -> Sample:
    return replace(BEFORE, traffic=replace(TRAFFIC, **changed))


def flow(**changed: float) -> Sample:
    return replace(BEFORE, nodes=(replace(NODE, flow=replace(FLOW, **changed)),))


@pytest.mark.parametrize(
    ("now", "codes"),
    [
        (BEFORE, []),
        (pods(restarts=2), ["TP7601"]),
        (pods(name="kube-system/q", restarts=0), []),
        (pods(ready=False, why="c crashes"), ["TP7602"]),
        (replace(BEFORE, pods=()), ["TP7602"]),
        (pods(lines=(("Unauthorized", "the token was not renewed"),)), ["TP7603"]),
        (traffic(lost=3, level="H1"), ["TP7604"]),
        (traffic(lost=3, level="unknown"), []),
        (traffic(opened=1, level="disruptive"), ["TP7605"]),
        (traffic(p999_ms=8), []),
        (traffic(p999_ms=9.5), ["TP7606"]),
        (pods(memory_mb=140), []),
        (pods(memory_mb=151), ["TP7607"]),
        (pods(cpu_milli=201), ["TP7608"]),
        (replace(BEFORE, objects={"ipamblocks.x": 4}), ["TP7609"]),
        (replace(BEFORE, objects={"ipamblocks.x": 1, "tiers.x": 1}), ["TP7609"]),
        (replace(BEFORE, objects={"ipamblocks.x": 3, "tiers.x": 1}), []),
        (replace(BEFORE, traffic=None), []),
        (flow(resent=150), []),
        (flow(resent=400), ["TP7610"]),
        (flow(segments=20, resent=19), []),
        (flow(dropped=49), []),
        (flow(dropped=60), ["TP7611"]),
        (flow(tunnel_bytes=300_000), []),
        (flow(tunnel_bytes=9_000), ["TP7612"]),
        (replace(BEFORE, nodes=()), []),
        (replace(BEFORE, nodes=(replace(NODE, wrong=()),)), []),
        (replace(BEFORE, nodes=(replace(NODE, wrong=(("TP7330", "nothing masquerades"),)),)), ["TP7613"]),
        (replace(BEFORE, nodes=(replace(NODE, node="n2"),)), ["TP7613"]),
    ],
)
def test_what_is_worse(now: Sample, codes: list[str]) -> None:
    assert [one.code for one in findings(BEFORE, now)] == codes


def test_a_baseline_is_a_file() -> None:
    assert load(msgspec.json.encode(BEFORE)) == BEFORE


def test_quantities() -> None:
    assert [quantity(text, _MEMORY) for text in ("2048Ki", "3Mi", "odd", "5Zi")] == [2.0, 3.0, 0.0, 0.0]
    assert [quantity(text, _CPU) for text in ("2500000n", "12m", "1")] == [2.5, 12.0, 1000.0]


def job(**told: Any) -> dict[str, Any]:
    """What is printed, by kind."""
    asked = {"probe_seconds": 10.0, "read_nodes": True} | told
    made = yaml.safe_load_all(manifests(Watch(image="r/towpath:v1", length=172800, every=600, **asked)))
    return {one["kind"]: one for one in made}


def verbs(role: dict[str, Any]) -> set[str]:
    return {verb for rule in role["rules"] for verb in rule["verbs"]}


def command(made: dict[str, Any]) -> list[str]:
    spec = made["Job"]["spec"]["template"]["spec"]
    assert spec["hostNetwork"]
    words: list[str] = spec["containers"][0]["command"]
    return words


def test_a_job_without_probes_reads_and_does_nothing_else() -> None:
    made = job(probe_seconds=0.0, read_nodes=False)
    assert set(made) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    assert verbs(made["ClusterRole"]) == {"get", "list"}
    assert command(made)[-3:] == ["--probe-seconds", "0", "--no-read-nodes"]


def test_the_job_is_told_what_the_command_is_told() -> None:
    """By the command's own parser: every word is an option of it."""
    made = job(baseline=msgspec.json.encode(BEFORE).decode())
    words = command(made)
    assert words[:5] == ["python3", "-m", "towpath", "upgrade", "watch"]
    told = watch.make_context("watch", words[5:]).params
    assert (told["length"], told["every"], told["probe_seconds"]) == (172800.0, 600.0, 10.0)
    assert (told["image"], told["read_nodes"]) == ("r/towpath:v1", True)
    folder, file = told["baseline"].parent, told["baseline"].name
    container = made["Job"]["spec"]["template"]["spec"]["containers"][0]
    assert [str(folder)] == [one["mountPath"] for one in container["volumeMounts"]]
    assert load(made["ConfigMap"]["data"][file].encode()) == BEFORE


def test_the_job_may_look_at_nodes_in_its_own_namespace_only() -> None:
    made = job(probe_seconds=0.0)
    assert made["Role"]["metadata"]["namespace"] == "kube-system"
    assert verbs(made["Role"]) == {"create", "delete"} and verbs(made["ClusterRole"]) == {"get", "list"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "--job needs --image"),
        (["--image", "x", "--save", "b.json"], "--save without it"),
        (["--image", "x", "--baseline", "absent.json"], "absent.json cannot be read"),
    ],
)
def test_a_job_that_cannot_be_made(more: list[str], why: str) -> None:
    done = CliRunner().invoke(watch, ["--job", *more])
    assert isinstance(done.exception, CliError) and why in str(done.exception)
