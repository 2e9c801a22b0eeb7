"""``towpath probe`` in a lab: a real cluster's way of being probed, faults and accidents included."""

import datetime
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_objects import TOWPATH, Kubectl, eventually, towpath

from towpath.lab.client import LabClient

pytestmark = pytest.mark.lab

# The machine that runs the tests is shared: fewer samples, and stalled ones are none of the test's business.
LIGHT = ("--slower", "4", "--control", "2")
STALLED_MS = 300


@pytest.fixture
def probe(lab: LabClient, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``towpath probe`` against the shared lab."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*TOWPATH, "probe", "--kubeconfig", lab.kubeconfig, *LIGHT, *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )

    return start


@pytest.fixture(autouse=True)
def nothing_stays(lab: LabClient, kubectl: Kubectl) -> Iterator[None]:
    """No namespace of a run is left, and no program of one outside."""
    yield
    eventually(lambda: not namespaces(kubectl))
    shown = "exec", "--name", lab.name, "outside", "--", "ps", "-eo", "args"
    eventually(lambda: "towpath.probe" not in towpath(*shown).stdout)


def namespaces(kubectl: Kubectl) -> list[str]:
    return [name for name in kubectl("get", "namespaces", "-o", "name").split() if "towpath-probe" in name]


def finished(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    out, err = process.communicate(timeout=600)
    assert (folder / "r.json").exists(), f"exit {process.returncode}\n{out}\n{err}"
    result: dict[str, Any] = json.loads((folder / "r.json").read_text())
    return result


@pytest.mark.parametrize(
    ("network", "code", "said"),
    [
        ("default/none", 7, "there is no NetworkAttachmentDefinition default/none"),
        ("none", 2, "NAMESPACE/NAME is wanted"),
    ],
)
def test_a_network_that_is_not_there_is_named(
    probe: Callable[..., subprocess.Popen[str]], network: str, code: int, said: str
) -> None:
    process = probe("--network", network, "--seconds", "1")
    _, err = process.communicate(timeout=300)
    assert (process.returncode, said in err) == (code, True), err


def test_an_agent_is_killed_under_probes_and_nothing_is_lost(
    lab: LabClient, probe: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    kill = f"{' '.join(TOWPATH)} lab kill-agent n1 --name {lab.name}; sleep 2"
    files = ("--json", "r.json", "--html", "r.html")
    for _ in range(3):
        result = finished(probe("--while", kill, "--node", "n1", *files), tmp_path)
        if not result["left_out"] and not result["total"]["lost"]:
            break
        if result["total"]["lag_ms"] < STALLED_MS:  # else whoever should have answered was stalled as well
            break
    assert not result["left_out"], "every probe passed its control"
    assert {path["path"] for path in result["paths"]} == {
        "pod → pod, same node",
        "pod → pod, cross node",
        "pod → service",
        "pod → outside, SNAT",
        "outside → hostPort",
        "outside → NodePort",
        "node → pod",
    }
    assert {(p["family"], q["kind"]) for p in result["paths"] for q in p["probes"]} >= {
        (family, kind)
        for family in (4, 6)
        for kind in ("udp", "udp-fresh", "tcp-echo", "tcp-connect", "dns", "deny-tcp", "deny-udp")
    }
    assert (result["total"]["lost"], result["total"]["opened"]) == (0, 0)
    assert [mark["what"].split(":")[0] for mark in result["marks"]] == ["begun", "ended with 0"]
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_a_cut_cable_is_seen_where_it_is_and_nowhere_else(
    lab: LabClient, probe: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    lab_verb = f"{' '.join(TOWPATH)} lab"
    cut = f"{lab_verb} cut n2 --name {lab.name}; sleep 0.5; {lab_verb} heal n2 --name {lab.name}; sleep 1"
    process = probe("--while", cut, "--node", "n1", "--json", "r.json")
    result = finished(process, tmp_path)
    lost = {path["path"]: 0 for path in result["paths"]}
    for path in result["paths"]:
        lost[path["path"]] += path["total"]["lost"]
    assert lost["pod → pod, cross node"] > 20
    assert lost["node → pod"] > 20
    assert lost["pod → pod, same node"] == lost["pod → outside, SNAT"] == 0
    crossed = [p for p in result["paths"] if p["path"] == "pod → pod, cross node"]
    assert all(max(gap["ms"] for gap in p["gaps"]) >= 400 for p in crossed)
    assert process.returncode in (3, 6)


def test_interrupted_it_tells_what_there_is(
    probe: Callable[..., subprocess.Popen[str]], tmp_path: Path, kubectl: Kubectl
) -> None:
    process = probe("--seconds", "0", "--json", "r.json", "--kind", "udp", "--kind", "tcp-connect")
    assert process.stderr is not None
    while "control window" not in (line := process.stderr.readline()):
        assert line
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    result = finished(process, tmp_path)
    assert result["total"]["sent"] > 100
    assert process.returncode in (130, 6)


def test_what_a_killed_run_leaves_is_removed_when_asked(
    lab: LabClient, probe: Callable[..., subprocess.Popen[str]], kubectl: Kubectl
) -> None:
    process = probe("--seconds", "60", "--kind", "udp")
    (name,) = eventually(lambda: namespaces(kubectl))
    own = ("pods", "-n", name.removeprefix("namespace/"), "-o", "name")
    eventually(lambda: "target" in kubectl("get", *own))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert clean(lab) == "nothing to remove\n", "its time is not over yet: it may be running elsewhere"
    past = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    kubectl("annotate", "--overwrite", name, f"probe.towpath.dev/expires={past}")
    assert clean(lab) == f"{name.removeprefix('namespace/')}: removed\n"


def clean(lab: LabClient) -> str:
    command = [*TOWPATH, "probe", "clean", "--kubeconfig", lab.kubeconfig]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def test_what_cannot_be_done_is_said(lab: LabClient) -> None:
    def refused(*arguments: str) -> tuple[int, str]:
        command = [*TOWPATH, "probe", "--kubeconfig", lab.kubeconfig, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, done.stderr

    code, words = refused("--node", "n9", "--kind", "udp")
    assert code == 7
    assert "no target on n9; there is one on n1, n2, n3" in words
    assert refused("--slower", "0.01")[0] == 2
    assert refused("--kind", "icmp")[0] == 2
    assert refused("--html", "/nowhere/r.html", "--seconds", "1")[0] == 7
