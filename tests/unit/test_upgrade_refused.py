"""Bad input before a roll: a refusal is a sentence that names what and the fix, and nothing was written."""

import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from served_fake import said, served
from towpath.backup.archive import Archive, Manifest, entry, pack
from towpath.catalogue import load
from towpath.cli.cluster import ClusterOptions
from towpath.cli.exit import CliError
from towpath.cli.upgrade_measure import start_probes
from towpath.cli.upgrade_plan import _pulled
from towpath.inventory.components import components
from towpath.kube import fakehttp
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer, Target
from towpath.kube.kinds import CONFIG_MAPS
from towpath.lab import canal
from towpath.probe import cluster
from towpath.upgrade import plan as plans
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Measure, NodeStep, Plan

POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "only-front", "namespace": "shop"},
    "spec": {"podSelector": {}},
}


class Stamping(FakeApiServer):
    """Gives new objects the time, as a server does whose clock was not set; and everybody every right."""

    stamp = "2020-01-01T00:00:00Z"

    def _create(self, target: Target, obj: dict[str, Any]) -> fakehttp.Answer:
        if target.collection.endswith("selfsubjectaccessreviews"):
            return fakehttp.Answer(201, {**obj, "status": {"allowed": True}})
        return super()._create(target, obj)

    def _store(
        self, type_: str, collection: str, key: tuple[str, str], obj: dict[str, Any]
    ) -> dict[str, Any]:
        meta = {"creationTimestamp": self.stamp, **obj["metadata"]}
        return super()._store(type_, collection, key, {**obj, "metadata": meta})


class Now(Stamping):
    """A server whose clock is right."""

    @property
    def stamp(self) -> str:  # type: ignore[override]
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


JOURNAL = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "towpath-upgrade", "namespace": "kube-system"},
    "data": {"plan": "{", "journal": "none"},
}


def writes(server: FakeApiServer) -> list[tuple[str, str]]:
    return [
        (method, target) for method, target in server.requests if method != "GET" and "dryRun" not in target
    ]


def archive(cluster: str) -> bytes:
    saved = entry("policies", "networking.k8s.io", "v1", "networkpolicies", POLICY, namespaced=True)
    manifest = Manifest(
        schema=1, towpath="0", taken="2026-11-27T09:00:00Z", server="v1", cluster=cluster, entries=()
    )
    return pack(Archive(manifest, (saved,)))


def plan(measure: Measure | None = None) -> bytes:
    made = Plan(
        created="2026-11-27T09:00:00Z",
        cluster="here",
        namespace="kube-system",
        daemonset="rke2-canal",
        source="1",
        target="2",
        images={"calico-node": ("x:1", "x:2")},
        strategy={"type": "RollingUpdate"},
        nodes=(NodeStep("n1", ""),),
        measure=measure,
    )
    return plans.dump(plans.sign(made))


def test_a_clock_that_is_not_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(plan())
    with served(Stamping, tmp_path) as (server, kubeconfig):
        code, told = said("upgrade", "apply", str(file), "--kubeconfig", kubeconfig)
        assert (code, "TP7411 this machine's clock is +" in told) == (7, True), told
        assert ("kube-system", "towpath-upgrade") not in server.objects.get("core/v1/configmaps", {})


def test_an_archive_of_another_cluster(tmp_path: Path) -> None:
    file = tmp_path / "a.tgz"
    file.write_bytes(archive("elsewhere"))
    with served(FakeApiServer, tmp_path) as (server, kubeconfig):
        code, told = said("restore", str(file), "--kubeconfig", kubeconfig)
        assert (code, "TP7202" in told, writes(server)) == (7, True, []), told


@pytest.mark.parametrize("kept", [0, 1, 20, -10, -1])
def test_an_archive_that_was_cut_off(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "a.tgz"
    file.write_bytes(archive("here")[:kept])
    with served(FakeApiServer, tmp_path) as (server, kubeconfig):
        code, told = said("restore", str(file), "--kubeconfig", kubeconfig)
        assert (code, "TP7201" in told, server.requests) == (2, True, []), told


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        (("status",), 2),
        (("report",), 7),
        (("pause",), 7),
        (("resume",), 7),
        (("apply", "PLAN"), 7),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_journal_that_cannot_be_read_stops_everything(
    tmp_path: Path, command: tuple[str, ...], exit_code: int
) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(plan())
    words = [str(file) if word == "PLAN" else word for word in command]
    with served(Now, tmp_path) as (server, kubeconfig):
        server.put(CONFIG_MAPS, JOURNAL)
        code, told = said("upgrade", *words, "--kubeconfig", kubeconfig)
        assert (code, "TP7403" in told, "towpath-upgrade" in told) == (exit_code, True, True), told
        assert (
            server.objects["core/v1/configmaps"]["kube-system", "towpath-upgrade"]["data"] == JOURNAL["data"]
        )


@pytest.mark.parametrize(
    "command",
    [
        ("inventory",),
        ("preflight", "--to", "v1.32.2+rke2r1"),
        ("backup", "FILE"),
        ("upgrade", "plan", "--to", "v1.32.2+rke2r1", "-f", "FILE"),
        ("upgrade", "apply", "PLAN"),
        ("verify",),
    ],
    ids=" ".join,
)
def test_no_permission_is_said_with_verb_and_resource(tmp_path: Path, command: tuple[str, ...]) -> None:
    made = tmp_path / "plan.json"
    made.write_bytes(plan())
    words = [{"FILE": str(tmp_path / "new"), "PLAN": str(made)}.get(word, word) for word in command]
    with served(FakeApiServer, tmp_path) as (server, kubeconfig):
        server.fail(403, times=1000)
        code, told = said(*words, "--kubeconfig", kubeconfig)
        assert (code, "check RBAC" in told) == (7, True), told
        assert re.match("(get namespaces/kube-system|list nodes|create kube-system/leases):", told), told
        assert not (tmp_path / "new").exists()


def test_probes_that_find_no_target_end_it_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody makes the targets' pods here. What was put into the cluster is gone again."""
    monkeypatch.setattr(cluster, "_READY_WITHIN", 0.0)
    made = plans.load(plan(Measure(image="x", python=("python3",), level="H0", probes=True)))
    with served(FakeApiServer, tmp_path) as (server, kubeconfig):
        options = ClusterOptions(kubeconfig, "")

        async def begin(client: Client) -> None:
            logbook = Logbook(client)
            await logbook.begin(made)
            async with AsyncExitStack() as stack:
                await start_probes(client, options, logbook, stack, lambda _: None)

        with pytest.raises(CliError, match=r"TP7408 probes cannot run: .*--no-probes does without"):
            options.run(begin)
        assert list(server.objects["core/v1/namespaces"]) == [("", "kube-system")]


def test_an_image_that_a_node_does_not_get_ends_the_plan(tmp_path: Path) -> None:
    """Nobody runs the pullers here."""
    raw = canal.daemonset(load.builtin().release("v1.32.1+rke2r1"))
    raw["metadata"]["uid"] = "ds"
    pod = {
        "metadata": {"name": "p", "ownerReferences": [{"uid": "ds"}]},
        "spec": {**raw["spec"]["template"]["spec"], "nodeName": "n1"},
    }
    (part,) = components([raw], [pod])
    newer = {"hardened-flannel": "v0.26.4-build20250218"}
    with served(FakeApiServer, tmp_path) as (server, kubeconfig):
        with pytest.raises(CliError, match=r"TP7410 .*n1: not pulled within 0 s: .*--no-pull does without"):
            ClusterOptions(kubeconfig, "").run(lambda client: _pulled(client, raw, part, newer, 0.0))
        assert not server.objects["core/v1/pods"]
