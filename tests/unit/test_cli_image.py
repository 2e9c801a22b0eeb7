"""``towpath image``: exit codes, formats, what went wrong in one sentence."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from image_cases import config, good, layer, oci
from towpath.cli.exit import CliError
from towpath.cli.image import command
from towpath.image.tree import Entry, file


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


@pytest.fixture
def clean(tmp_path: Path) -> str:
    return str(oci(tmp_path / "clean", layer(good())))


@pytest.fixture
def bad(tmp_path: Path) -> str:
    planted = {"usr/bin/bash": file("x", 0o755), "usr/lib/<b>": Entry("file", 0o4755)}
    return str(oci(tmp_path / "bad", layer({**good(), **planted}), image=config(User="")))


def test_clean(clean: str) -> None:
    done = run("audit", clean, "--max-age", "99999")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "nothing found")
    assert "user 1000:1000, 1 packages" in done.output


def test_table_worst_first_and_exit_code(bad: str) -> None:
    done = run("audit", bad, "--max-age", "99999")
    assert done.exit_code == 3
    rows = [line.split()[:2] for line in done.output.splitlines() if " TP8" in line]
    assert [r[0] for r in rows] == ["high", "high", "high", "medium", "medium"]
    assert done.output.splitlines()[-1] == "3 high, 2 medium"
    assert run("audit", bad, "--max-age", "99999", "--fail-on", "critical").exit_code == 0
    assert "CIS Docker 4.1" in run("audit", bad, "-o", "wide").output


def test_json_and_yaml(bad: str) -> None:
    found = json.loads(run("audit", bad, "-o", "json").output)
    shell = next(f for f in found["findings"] if f["code"] == "TP8120")
    assert (shell["path"], shell["severity"]) == ("usr/bin/bash", "high")
    assert shell["standards"] and shell["fix"] and shell["title"]
    assert yaml.safe_load(run("audit", bad, "-o", "yaml").output) == found


def test_sarif(bad: str) -> None:
    found = json.loads(run("audit", bad, "-o", "sarif").output)
    (run_,) = found["runs"]
    assert found["version"] == "2.1.0"
    rules = run_["tool"]["driver"]["rules"]
    for result in run_["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert " " not in result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def test_html_needs_nothing_else_and_escapes(bad: str) -> None:
    text = run("audit", bad, "-o", "html").output
    page = Page()
    page.feed(text)
    assert not {"script", "link", "img"} & set(page.tags)
    assert "usr/lib/&lt;b&gt;" in text and "usr/lib/<b>" not in text


def test_pods_alone_and_with_an_image(clean: str, tmp_path: Path) -> None:
    pods = tmp_path / "pods.yaml"
    pods.write_text("kind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'x@sha256:12'}]}\n")
    alone = json.loads(run("audit", "--manifest", str(pods), "-o", "json").output)
    assert {f["code"] for f in alone["findings"]} >= {"TP8203", "TP8204", "TP8205"}
    both = json.loads(run("audit", clean, "--manifest", str(pods), "-o", "json").output)
    assert "TP8213" in {f["code"] for f in both["findings"]}, "it pins another image than the audited one"


def failed(*arguments: str) -> CliError:
    done = run(*arguments)
    assert isinstance(done.exception, CliError)
    return done.exception


def test_what_cannot_be_read_is_said_in_one_sentence(clean: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"nothing")
    assert str(failed("audit", str(tmp_path / "x.tar"))).startswith("TP8010 ")
    assert failed("audit", str(tmp_path / "x.tar")).exit_code == 7
    assert failed("audit").exit_code == 2
    assert failed("audit", clean, "--vex", str(tmp_path / "x.tar")).exit_code == 2
    (tmp_path / "y.yaml").write_text("a: [")
    assert failed("audit", "--manifest", str(tmp_path / "y.yaml")).exit_code == 2


def test_diff(clean: str, bad: str) -> None:
    assert (run("diff", clean, clean).exit_code, run("diff", clean, clean).output) == (0, "no difference\n")
    done = run("diff", clean, bad, "-o", "json")
    assert done.exit_code == 3
    rows = {(r["sign"], r["kind"], r["what"]) for r in json.loads(done.output)}
    assert ("-", "config", "User") in rows
    assert ("+", "file", "usr/bin/bash") in rows
    assert ("+", "finding", "TP8120 usr/bin/bash") in rows
    short = json.loads(run("diff", clean, bad, "--no-files", "-o", "json").output)
    assert "file" not in {r["kind"] for r in short}


def test_diff_of_packages(clean: str, tmp_path: Path) -> None:
    newer = {**good()}
    newer["var/lib/dpkg/status"] = file(newer["var/lib/dpkg/status"].content.replace(b"1.0-2+b1", b"1.0-3"))
    other = str(oci(tmp_path / "newer", layer(newer)))
    assert "~   package   deb tool" in run("diff", clean, other).output
    rows = json.loads(run("diff", clean, other, "-o", "json").output)
    assert ("1.0-2+b1", "1.0-3") in {(r["old"], r["new"]) for r in rows}
