"""Plans for system-upgrade-controller, and one question to several clusters."""

import json
import subprocess
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner

from towpath.cli.main import cli
from towpath.cli.several import _badness, _output, _without, combined
from towpath.upgrade.node_plans import frozen_arguments, may_look, node_plans
from towpath.upgrade.window import WindowError


def test_servers_first_and_only_while_the_charts_are_frozen() -> None:
    servers, agents = node_plans("v1.32.2+rke2r1", ("rke2-canal",), drain=True, window="Sat 22:00-04:00 UTC")
    assert servers["spec"]["prepare"]["image"] == "rancher/kubectl:v1.32.2"
    assert servers["spec"]["prepare"]["args"][-1] == "helmchart.helm.cattle.io/rke2-canal"
    assert agents["spec"]["prepare"]["args"] == ["prepare", "rke2-server"]
    for plan in (servers, agents):
        spec = plan["spec"]
        assert (spec["version"], spec["concurrency"]) == ("v1.32.2+rke2r1", 1)
        assert spec["window"] == {
            "days": ["saturday"], "startTime": "22:00", "endTime": "04:00", "timeZone": "UTC",
        }  # fmt: skip
        assert spec["drain"]["ignoreDaemonSets"] is True
    operators = [p["spec"]["nodeSelector"]["matchExpressions"][0]["operator"] for p in (servers, agents)]
    assert operators == ["In", "NotIn"]
    assert "window" not in node_plans("v1.32.2+rke2r1", ("a",), drain=False)[0]["spec"]
    with pytest.raises(WindowError):
        node_plans("v1.32.2+rke2r1", ("a",), drain=False, window="noon")


def test_the_controllers_jobs_may_look_at_the_charts_and_at_nothing_else() -> None:
    role, binding = may_look(("rke2-canal", "rke2-multus"))
    (rule,) = role["rules"]
    assert rule["resources"] == ["helmcharts"] and rule["resourceNames"] == ["rke2-canal", "rke2-multus"]
    assert rule["verbs"] == ["get", "list", "watch"]
    servers, _ = node_plans("v1.32.2+rke2r1", ("rke2-canal",), drain=False)
    (subject,) = binding["subjects"]
    assert subject["name"] == servers["spec"]["serviceAccountName"]
    assert subject["namespace"] == servers["metadata"]["namespace"]
    told = CliRunner().invoke(cli, ["upgrade", "node-plans", "--to", "v1.32.2+rke2r1"]).output
    kinds = [one["kind"] for one in yaml.safe_load_all(told)]
    assert kinds == ["Role", "RoleBinding", "Plan", "Plan"]


def test_dots_of_the_annotation_are_kubectls_to_escape() -> None:
    assert r"{.metadata.annotations.helmcharts\.helm\.cattle\.io/unmanaged}=true" in " ".join(
        frozen_arguments(("a", "b"))
    )


def answer(code: int, out: str = "", err: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, out, err)


ANSWERS = {"a": answer(0, '{"x": 1}'), "b": answer(7, "", "towpath: no answer\n")}


def test_several_answers_in_one_form() -> None:
    assert json.loads(combined(ANSWERS, "json")) == {
        "a": {"x": 1}, "b": {"error": "towpath: no answer", "exitCode": 7},
    }  # fmt: skip
    assert [json.loads(row)["context"] for row in combined(ANSWERS, "jsonl").splitlines()] == ["a", "b"]
    table = combined({"a": answer(0, "fine\n"), "b": answer(3, "bad\n")}, "table")
    assert table == "=== a: exit code 0\nfine\n\n=== b: exit code 3\nbad"
    root = ElementTree.fromstring(
        combined({"a": answer(0, '<testsuite name="p"/>'), "b": ANSWERS["b"]}, "junit")
    )
    assert [suite.get("name") for suite in root] == ["a: p", "b"]
    assert root.find(".//error") is not None


def test_the_worst_exit_code_counts() -> None:
    assert sorted([7, 3, 0, 6, 1], key=_badness) == [0, 6, 3, 1, 7]


def test_the_command_line_without_the_option() -> None:
    words = ["verify", "--contexts", "a,b", "-o", "json", "--contexts=c"]
    assert _without(words) == ["verify", "-o", "json"]
    assert [_output(w) for w in (["-ojson"], ["--output=junit"], ["-o", "yaml"], ["verify"])] == [
        "json", "junit", "yaml", "table",
    ]  # fmt: skip
