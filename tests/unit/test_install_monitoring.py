"""What Prometheus and Grafana are told: of metrics there are, of labels these have."""

import json
import re

import pytest
import yaml

from towpath.agent.metrics import METRICS
from towpath.cli.install import _PLURALS
from towpath.install.monitoring import ALERTS, PANELS
from towpath.install.render import render
from towpath.install.values import ValuesError, values

EXPRESSIONS = [alert.expression for alert in ALERTS] + [e for _, _, shown in PANELS for e, _ in shown]
ASKED = {"metrics_tls_secret": "tls", "service_monitor": True, "alert_rules": True, "dashboard": True}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
ON_THE_WIRE = {name + suffix: what for name, what in METRICS.items() for suffix in SUFFIXES[what.kind]}
ADDED = {"instance", "job", "le"}  # by Prometheus, and of buckets


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_metrics_and_labels_are_those_of_the_agent(expression: str) -> None:
    names = re.findall(r"\btowpath_\w+", expression.replace("towpath-metrics", ""))
    assert names or expression.startswith(("up{", "count(up{"))
    for name in names:
        assert name in ON_THE_WIRE, f"{name} is no metric of the agent's"
    known = ADDED.union(*(ON_THE_WIRE[name].labels for name in names))
    used = set(re.findall(r"(\w+)!?=~?\"", expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        used |= {label.strip() for label in group.split(",")}
    assert used <= known
    assert expression.count("(") == expression.count(")")


def test_legends_name_labels_that_the_expression_leaves() -> None:
    for _, _, shown in PANELS:
        for expression, legend in shown:
            labels = set(re.findall(r"{{(\w+)}}", legend))
            grouped = re.search(r"by \(([^)]*)\)", expression)
            assert labels <= (set(grouped[1].split(", ")) if grouped else ADDED)


def test_nothing_of_it_is_there_unasked_and_all_of_it_is_known_to_check() -> None:
    plain = {(o["kind"], o["metadata"]["name"]) for o in render(values({}))}
    asked = {(o["kind"], o["metadata"]["name"]) for o in render(values(ASKED))}
    assert asked - plain == {
        ("Service", "towpath-metrics"),
        ("ServiceMonitor", "towpath-metrics"),
        ("PrometheusRule", "towpath-alerts"),
        ("ConfigMap", "towpath-dashboard"),
    }
    assert {kind for kind, _ in asked} <= set(_PLURALS)


def test_metrics_leave_the_node_with_tls_only() -> None:
    by_kind = {o["kind"]: o for o in reversed(render(values(ASKED)))}
    agent = yaml.safe_load(by_kind["ConfigMap"]["data"]["agent.yaml"])
    assert agent["health_address"] == ":9109"
    pod = by_kind["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    folder = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "metrics-tls")
    assert agent["health_tls_key"] == f"{folder}/tls.key"
    assert by_kind["ServiceMonitor"]["spec"]["endpoints"][0]["scheme"] == "https"
    with pytest.raises(ValuesError, match="metrics_tls_secret"):
        values({"service_monitor": True})


def test_the_dashboard_is_one() -> None:
    made = next(o for o in render(values(ASKED)) if o["metadata"]["name"] == "towpath-dashboard")
    document = json.loads(made["data"]["towpath.json"])
    assert len(document["panels"]) == len(PANELS)
    assert len({tuple(p["gridPos"].items()) for p in document["panels"]}) == len(PANELS)
