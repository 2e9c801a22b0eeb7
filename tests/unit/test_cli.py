"""The command line's frame: verbs, exit codes, formats."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from towpath.cli.main import VERBS, cli, program_name
from towpath.cli.output import table
from towpath.model.codes import CODES


def towpath(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "towpath", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"])
    assert result.exit_code == 0, result.output


def test_an_unknown_verb_names_the_nearest_and_exits_2() -> None:
    ended = towpath("stats")
    assert ended.returncode == 2
    assert "did you mean 'status'" in ended.stderr


def test_help_imports_no_http_client_and_no_lab() -> None:
    code = (
        "import sys, towpath.cli.main as m; m.cli.main(['--help'], standalone_mode=False);"
        "print([n for n in sys.modules if n.startswith(('aiohttp', 'rich', 'towpath.lab', 'towpath.kube'))])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_explain_knows_every_code_and_refuses_others() -> None:
    ended = towpath("explain", "TP0000")
    assert ended.returncode == 2
    assert "lists all" in ended.stderr
    listed = towpath("explain").stdout
    for code in CODES:
        assert code in listed


def test_codes_say_why_and_what_to_do() -> None:
    for code, entry in CODES.items():
        assert code.startswith("TP") and len(code) == 6 and code[2:].isdigit(), code
        assert entry.title and entry.cause and entry.fix, code


def test_no_cluster_is_a_precondition_and_says_what_to_do(tmp_path: object) -> None:
    ended = towpath("status", "--kubeconfig", "/nonexistent/config")
    assert ended.returncode == 7
    assert "/nonexistent/config" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_as_a_kubectl_plugin_usage_shows_what_was_typed() -> None:
    assert program_name("/usr/local/bin/kubectl-towpath") == "kubectl towpath"
    assert program_name("towpath") == "towpath"


def test_completion_is_a_script() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_TOWPATH_COMPLETE" in CliRunner().invoke(cli, ["completion", shell]).output


def test_tables_align_and_end_without_blanks() -> None:
    text = table(["NAME", "N"], [["a", "1"], ["longer", "22"]])
    assert text == "NAME     N\na        1\nlonger   22"


def test_status_reads_what_agents_publish() -> None:
    from towpath.api.core import Condition, Node, NodeStatus
    from towpath.api.meta import ObjectMeta
    from towpath.cli.status import as_table, describe_node

    report = {"version": "0.1.0", "ready": True, "drift": ["add route 10.42.1.0/24 dev flannel.1"]}
    conditions = [Condition("Ready", "True"), Condition("NetworkUnavailable", "False")]
    node = Node(
        metadata=ObjectMeta(name="n1", annotations={"towpath.dev/status": json.dumps(report)}),
        status=NodeStatus(conditions=conditions),
    )
    row = describe_node(node, [])
    assert row["problems"] == ["differs: add route 10.42.1.0/24 dev flannel.1"]
    assert "1 problem" in as_table([row])
    silent = Node(metadata=ObjectMeta(name="n1"), status=NodeStatus(conditions=conditions))
    assert describe_node(silent, [])["problems"] == ["no report from an agent"]


def test_the_reference_in_docs_is_what_the_program_says() -> None:
    command = [sys.executable, "-m", "docs.generate", "--check"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 0, "run `make docs`"
