"""RKE2's HelmChart holds the chart of the repository, and values that the chart takes."""

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from towpath.cli.install import command
from towpath.install.chart import chart
from towpath.install.rke2 import packed


def printed(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, ["rke2", *words])
    assert done.exit_code == 0, done.output
    made: dict[str, Any] = yaml.safe_load(done.output)
    return made


def test_the_chart_is_in_it() -> None:
    spec = printed()["spec"]
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(spec["chartContent"]))) as tar:
        found = {m.name.removeprefix("towpath/"): tar.extractfile(m).read().decode() for m in tar}  # type: ignore[union-attr]
    assert found == chart()
    assert packed() == packed()
    assert (spec["bootstrap"], spec["failurePolicy"], spec["valuesContent"]) == (True, "abort", "")


def test_values_are_what_was_chosen(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("backend: host-gw\nuid: 10531\n")
    made = printed("--values", str(file), "--registry", "registry.example.org")
    chosen = yaml.safe_load(made["spec"]["valuesContent"])
    assert chosen == {"backend": "host-gw", "global": {"systemDefaultRegistry": "registry.example.org"}}
    assert set(chosen) <= set(json.loads(chart()["values.schema.json"])["properties"])
