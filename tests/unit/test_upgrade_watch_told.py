"""``towpath upgrade watch`` says what it could not look at, each once, and a baseline keeps it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from served_fake import said, served
from towpath.catalogue import load
from towpath.kube import fakehttp
from towpath.kube.fake import FakeApiServer, Target
from towpath.kube.kinds import DAEMONSETS, PODS
from towpath.lab import canal

QUIET = ("--probe-seconds", "0", "--no-read-nodes")


class Guarded(FakeApiServer):
    """Has nobody know what pods use."""

    def _list(self, target: Target, query: dict[str, str]) -> fakehttp.Answer:
        if "metrics.k8s.io" in target.collection:
            return fakehttp.Answer(403, {"kind": "Status", "code": 403, "message": "not you"})
        return super()._list(target, query)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[FakeApiServer, str]]:
    """A network of one pod."""
    raw = canal.daemonset(load.builtin().release("v1.32.1+rke2r1"))
    raw["metadata"]["uid"] = "ds"
    with served(Guarded, tmp_path) as (server, kubeconfig):
        server.put(DAEMONSETS, raw)
        uid = server.get(DAEMONSETS, "rke2-canal", "kube-system")["metadata"]["uid"]
        server.put(
            PODS.raw(),
            {
                "metadata": {"name": "p", "namespace": "kube-system", "ownerReferences": [{"uid": uid}]},
                "spec": {**raw["spec"]["template"]["spec"], "nodeName": "n1"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            },
        )
        yield server, kubeconfig


def test_what_is_left_out_is_told_once(watched: tuple[FakeApiServer, str]) -> None:
    server, kubeconfig = watched
    code, told = said("upgrade", "watch", "--for", "1s", "--every", "0s", *QUIET, "--kubeconfig", kubeconfig)
    lines = [line for line in told.splitlines() if "left out: " in line]
    assert (code, "nothing is worse" in told) == (0, True), told
    assert sum("processor and memory of pods" in line for line in lines) == 1
    assert len(lines) == len({line.partition("left out: ")[2] for line in lines})
    asked = [target for _, target in server.requests if "metrics.k8s.io" in target]
    assert f"{len(asked)} looks" in told


def test_a_baseline_keeps_what_it_lacks(watched: tuple[FakeApiServer, str], tmp_path: Path) -> None:
    _, kubeconfig = watched
    file = tmp_path / "before.json"
    code, told = said("upgrade", "watch", "--save", str(file), *QUIET, "--kubeconfig", kubeconfig)
    assert code == 0 and "left out: processor and memory of pods" in told
    kept = json.loads(file.read_text())
    assert [pod["name"] for pod in kept["pods"]] == ["kube-system/p"]
    assert any("processor and memory" in why for why in kept["left_out"])
