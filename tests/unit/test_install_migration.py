"""A cluster that is half Canal's: where the DaemonSet runs, what the Job may do, when an installer keeps
off.
"""

from pathlib import Path

import yaml
from click.testing import CliRunner

from towpath.cli.node import command
from towpath.install.daemonset import daemonset
from towpath.install.hold import FILE, Hold, held, hold, release
from towpath.install.migration import job
from towpath.install.node import _keep_off
from towpath.install.values import values


def test_while_migrating_the_agent_runs_on_labelled_nodes_only() -> None:
    spec = daemonset(values({"migrating": True}), "")["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = terms["nodeSelectorTerms"][0]["matchExpressions"]
    assert expression["key"] == "towpath.dev/network"
    assert set(expression["values"]) == {"takeover", "towpath", "handback"}
    assert "affinity" not in daemonset(values({}), "")["spec"]["template"]["spec"]


def test_the_job_is_root_on_one_node_and_not_privileged() -> None:
    account, role, binding, made = job(values({"namespace": "net"}), "takeover", "n7")
    spec = made["spec"]["template"]["spec"]
    assert (made["metadata"]["name"], spec["nodeName"]) == ("towpath-takeover-n7", "n7")
    assert spec["hostNetwork"]
    assert spec["hostPID"]
    security = spec["containers"][0]["securityContext"]
    assert "privileged" not in security
    assert "NET_RAW" in security["capabilities"]["add"]
    assert binding["subjects"][0]["namespace"] == account["metadata"]["namespace"] == "net"
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"patch", "list"}


def test_it_is_printed_ready_for_kubectl(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("takeover_image: example.org/t:1\n")
    shown = CliRunner().invoke(command, ["job", "handback", "n1", "--values", str(file)])
    made = list(yaml.safe_load_all(shown.output))[-1]
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example.org/t:1"
    assert container["command"][-1] == "handback"


def test_an_installer_keeps_off_a_node_that_is_another_networks(tmp_path: Path) -> None:
    ours = tmp_path / "10-towpath.conflist"
    (tmp_path / "20-later.conflist").touch()
    (tmp_path / ".10-canal.conflist").touch()
    _keep_off(ours, tmp_path)
    assert held(tmp_path) is None
    (tmp_path / "10-canal.conflist").touch()
    _keep_off(ours, tmp_path)
    found = held(tmp_path)
    assert found is not None
    assert found.scope == "all"
    assert "10-canal.conflist" in found.reason
    release(tmp_path)
    (tmp_path / "leases.db").touch()  # it is ours, whatever has been put there since
    _keep_off(ours, tmp_path)
    assert held(tmp_path) is None


def test_a_hold_that_cannot_be_read_holds(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    assert (held(tmp_path) or Hold(scope="add", reason="")).scope == "all"
    hold(tmp_path, "add", "why")
    assert held(tmp_path) == Hold(scope="add", reason="why")
