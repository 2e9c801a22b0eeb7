"""The Helm chart is made from the manifests; `make chart` has Helm itself install it."""

import json
import re
from pathlib import Path

import yaml

from towpath.install.chart import chart
from towpath.install.values import Values, values

CHART = Path(__file__).parents[2] / "charts/towpath"


def test_the_chart_of_the_repository_is_the_one_that_is_made() -> None:
    made = chart()
    there = {str(p.relative_to(CHART)): p.read_text() for p in CHART.rglob("*") if p.is_file()}
    assert there == made, "python -m towpath.install.chart charts/towpath"


def test_its_values_are_those_of_install_render() -> None:
    given = yaml.safe_load(chart()["values.yaml"])
    assert given.pop("global") == {"systemDefaultRegistry": ""}
    assert values(given) == Values()


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads(chart()["values.schema.json"])
    assert set(schema["properties"]) == set(yaml.safe_load(chart()["values.yaml"]))
    assert schema["additionalProperties"] is False


def test_no_mark_is_left_and_every_block_is_closed() -> None:
    for name, text in chart().items():
        assert "mark" not in re.sub(r"benchmark|remark|markers?", "", text), name
        assert "21111111" not in text and "31119" not in text, name
        opened = len(re.findall(r"{{-? *(?:if|range|with|define) ", text))
        assert opened == len(re.findall(r"{{-? *end *-?}}", text)), name
