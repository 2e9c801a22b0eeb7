"""Bad input before a roll: a refusal is a sentence that names what and the fix, and nothing was written."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from towpath.backup.archive import Archive, Manifest, entry, pack
from towpath.cli.exit import CliError
from towpath.cli.main import cli
from towpath.kube import fakehttp
from towpath.kube.fake import FakeApiServer, Target
from towpath.kube.kinds import NAMESPACES
from towpath.upgrade import plan as plans
from towpath.upgrade.plan import NodeStep, Plan

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


@contextmanager
def served(kind: type[FakeApiServer], folder: Path) -> Iterator[tuple[FakeApiServer, str]]:
    """A server in a thread of its own, and the file that leads to it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(kind.start(), loop).result()
    file = folder / "kubeconfig"
    file.write_text(
        f"clusters: [{{name: c, cluster: {{server: '{server.config().server}'}}}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
        "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
    )
    server.put(NAMESPACES, {"metadata": {"name": "kube-system", "uid": "here"}})
    try:
        yield server, str(file)
    finally:
        asyncio.run_coroutine_threadsafe(server.down(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def said(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    done = CliRunner().invoke(cli, list(arguments))
    if isinstance(done.exception, CliError):
        return done.exception.exit_code, f"{done.output}{done.exception}"
    return done.exit_code, done.output


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


def plan() -> bytes:
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
