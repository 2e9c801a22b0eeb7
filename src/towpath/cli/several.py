"""``--contexts``: the same question to several clusters at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

import click

from towpath.cli.exit import FINDING, INCONCLUSIVE, OK, USAGE, CliError
from towpath.cli.output import mark

_OPTION = "--contexts"
_AT_ONCE = 16
_ORDER = (OK, INCONCLUSIVE, FINDING)  # anything else is worse


def contexts_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--contexts a,b,c``: instead of one cluster, all of these; the exit code is the worst of theirs."""
    return click.option(
        _OPTION,
        metavar="A,B,…",
        callback=_several,
        expose_value=False,
        help="Ask the clusters of these kubeconfig contexts at once, instead of one.",
    )(command)


def _several(ctx: click.Context, _: click.Parameter, given: str | None) -> None:
    if not given:
        return
    names = [name.strip() for name in given.split(",") if name.strip()]
    if len(set(names)) != len(names) or not names:
        raise CliError(f"{_OPTION} {given!r}: name every context once, with commas between", USAGE)
    words = _without(sys.argv[1:])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip(names, pool.map(lambda name: _ask(words, name), names), strict=True))
    click.echo(combined(answers, _output(words)))
    ctx.exit(max((one.returncode for one in answers.values()), key=_badness))


def _badness(code: int) -> int:
    return _ORDER.index(code) if code in _ORDER else len(_ORDER) + code


def _ask(words: list[str], name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "towpath", *words, "--context", name]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _without(words: list[str]) -> list[str]:
    """The command line without the option itself."""
    kept = []
    skip = False
    for word in words:
        if skip or word.startswith(f"{_OPTION}="):
            skip = False
        elif word == _OPTION:
            skip = True
        else:
            kept.append(word)
    return kept


def _output(words: list[str]) -> str:
    for index, word in enumerate(words):
        if word in ("-o", "--output") and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(("-o", "--output=")) and word != "-o":
            return word.removeprefix("--output=").removeprefix("-o").lstrip("=")
    return "table"


def combined(answers: dict[str, subprocess.CompletedProcess[str]], output: str) -> str:
    """One JSON object by context, one YAML document each, one JUnit file, or one after the other."""
    match output:
        case "json":
            return json.dumps({name: _parsed(one) for name, one in answers.items()}, indent=2)
        case "jsonl":
            rows = ({"context": name, "answer": _parsed(one)} for name, one in answers.items())
            return "\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        case "junit":
            return _junit(answers)
    parts = []
    for name, one in answers.items():
        state = "ok" if one.returncode == OK else "error"
        head = f"# {name}" if output == "yaml" else mark(f"=== {name}: exit code {one.returncode}", state)
        parts.append(f"{head}\n{one.stdout or one.stderr}".rstrip())
    return ("\n---\n" if output == "yaml" else "\n\n").join(parts)


def _parsed(one: subprocess.CompletedProcess[str]) -> Any:
    try:
        return json.loads(one.stdout)
    except ValueError:
        return {"error": one.stderr.strip(), "exitCode": one.returncode}


def _junit(answers: dict[str, subprocess.CompletedProcess[str]]) -> str:
    root = ElementTree.Element("testsuites")
    for name, one in answers.items():
        try:
            suite = ElementTree.fromstring(one.stdout)  # noqa: S314 (our own output)
        except ElementTree.ParseError:
            suite = ElementTree.Element("testsuite", tests="1", errors="1")
            case = ElementTree.SubElement(suite, "testcase", name="asking the cluster")
            ElementTree.SubElement(case, "error", message=one.stderr.strip())
        suite.set("name", f"{name}: {suite.get('name', '')}".rstrip(": "))
        root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")
