"""What Prometheus' operator and Grafana are told of the agents, for those who ask for it.

The metrics are those of ``agent/metrics.py``; a test holds every expression here against them.
"""

import json
from typing import Any, NamedTuple

from towpath.install.values import Values

NAME = "towpath-metrics"
RULES_NAME, DASHBOARD_NAME = "towpath-alerts", "towpath-dashboard"
_GROUP = "monitoring.coreos.com/v1"
_LABELS = {"app.kubernetes.io/name": "towpath", "k8s-app": "towpath"}


class Alert(NamedTuple):
    """``expression`` true for ``lasting``; ``says`` what it means and what to look at."""

    name: str
    expression: str
    lasting: str
    severity: str
    says: str


ALERTS = (
    Alert(
        "TowpathAgentDown",
        f'up{{job="{NAME}"}} == 0',
        "5m",
        "critical",
        "The agent is not to be reached. Pods that run go on; new ones get no network: "
        "kubectl -n kube-system describe pods -l k8s-app=towpath",
    ),
    Alert(
        "TowpathNotReady",
        "min by (instance, condition) (towpath_ready) == 0",
        "5m",
        "critical",
        "A condition of the agent's readiness does not hold: towpath status",
    ),
    Alert(
        "TowpathPodsNotAttached",
        'sum by (instance) (increase(towpath_cni_requests_total{command="ADD", code!="0"}[10m])) > 3',
        "0m",
        "critical",
        "Pods do not get their network: kubectl describe pod has the code, towpath explain what to do",
    ),
    Alert(
        "TowpathDrift",
        "towpath_drift > 0",
        "5m",
        "warning",
        "The kernel refuses what the agent wants of it: towpath status -o wide",
    ),
    Alert(
        "TowpathOpen",
        "increase(towpath_fail_open_seconds_count[1h]) > 0",
        "0m",
        "warning",
        "Somebody flushed the node's rules; policies were not in force until they were back: docs/repair.md",
    ),
    Alert(
        "TowpathRepairs",
        "sum by (instance) (increase(towpath_repairs_total[10m])) > 20",
        "10m",
        "warning",
        "Something else keeps changing the node's part of the pod network: towpath explain TP1023",
    ),
    Alert(
        "TowpathApiUnheard",
        "min by (instance, kind) (towpath_api_up) == 0",
        "10m",
        "warning",
        "The agent hears of no changes, of policies neither: is the API server up, and its address right?",
    ),
    Alert(
        "TowpathAddressesLow",
        'sum by (instance, range) (towpath_ipam_addresses{state="free"})'
        " / sum by (instance, range) (towpath_ipam_addresses) < 0.05",
        "10m",
        "warning",
        "Fewer than one address in twenty is free: towpath ipam show",
    ),
    Alert(
        "TowpathAddressTwice",
        "towpath_ipam_conflicts > 0",
        "5m",
        "critical",
        "A pod has an address that an older pod elsewhere has: towpath ipam check",
    ),
    Alert(
        "TowpathFindings",
        'sum by (instance, code) (towpath_findings{severity="error"}) > 0',
        "15m",
        "warning",
        "The agent reports an error: towpath explain CODE says what to do",
    ),
)
# Title, unit, and expressions with their legends.
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Agents that are ready",
        "short",
        (
            ("count(min by (instance) (towpath_ready) == 1)", "ready"),
            (f'count(up{{job="{NAME}"}})', "all"),
        ),
    ),
    ("Versions", "short", (("count by (version) (towpath_build_info)", "{{version}}"),)),
    ("Pods attached", "short", (("towpath_pods", "{{instance}}"),)),
    (
        "Free addresses",
        "short",
        (
            (
                'sum by (instance, range) (towpath_ipam_addresses{state="free"})',
                "{{instance}} {{range}}",
            ),
        ),
    ),
    (
        "CNI calls, 99th percentile",
        "s",
        (
            (
                "histogram_quantile(0.99, sum by (le, command) (rate(towpath_cni_seconds_bucket[5m])))",
                "{{command}}",
            ),
        ),
    ),
    (
        "CNI calls that failed",
        "short",
        (
            (
                'sum by (command, code) (increase(towpath_cni_requests_total{code!="0"}[5m]))',
                "{{command}} {{code}}",
            ),
        ),
    ),
    (
        "Policy until in force, 99th percentile",
        "s",
        (
            (
                "histogram_quantile(0.99, sum by (le) (rate(towpath_policy_seconds_bucket[5m])))",
                "policy",
            ),
        ),
    ),
    (
        "Packets dropped by the node's rules",
        "pps",
        (("sum by (reason) (rate(towpath_dropped_packets_total[5m]))", "{{reason}}"),),
    ),
    (
        "Repairs of others' changes",
        "short",
        (
            (
                "sum by (instance, operation) (increase(towpath_repairs_total[5m]))",
                "{{instance}} {{operation}}",
            ),
        ),
    ),
    ("Findings", "short", (("sum by (code, severity) (towpath_findings)", "{{code}} {{severity}}"),)),
)


def monitoring(values: Values) -> tuple[dict[str, Any], ...]:
    """What of it the values ask for."""
    objects = []
    if values.metrics_tls_secret:
        objects.append(_service(values))
    if values.service_monitor:
        objects.append(_monitor(values))
    if values.alert_rules:
        objects.append(_object(_GROUP, "PrometheusRule", RULES_NAME, values, spec={"groups": [_group()]}))
    if values.dashboard:
        objects.append(_dashboard(values))
    return tuple(objects)


def _object(version: str, kind: str, name: str, values: Values, **body: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": values.namespace, "labels": dict(_LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _service(values: Values) -> dict[str, Any]:
    """Without an address of its own: where the agents are."""
    port = {"name": "metrics", "port": values.health_port, "targetPort": values.health_port}
    spec = {"clusterIP": "None", "selector": {"k8s-app": "towpath"}, "ports": [port]}
    return _object("v1", "Service", NAME, values, spec=spec)


def _monitor(values: Values) -> dict[str, Any]:
    """The certificate is checked against ``ca.crt`` of the same Secret."""
    authority = {"secret": {"name": values.metrics_tls_secret, "key": "ca.crt"}}
    endpoint = {
        "port": "metrics",
        "scheme": "https",
        "tlsConfig": {"ca": authority, "serverName": NAME},
        "relabelings": [
            {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"},
        ],
    }
    spec = {
        "jobLabel": "",
        "selector": {"matchLabels": dict(_LABELS)},
        "namespaceSelector": {"matchNames": [values.namespace]},
        "endpoints": [endpoint],
    }
    return _object(_GROUP, "ServiceMonitor", NAME, values, spec=spec)


def _group() -> dict[str, Any]:
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.lasting,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.says},
        }
        for alert in ALERTS
    ]
    return {"name": "towpath", "rules": rules}


def _dashboard(values: Values) -> dict[str, Any]:
    """A ConfigMap with the label by which Grafana's sidecar finds dashboards."""
    panels = [
        {
            "type": "timeseries",
            "title": title,
            "gridPos": {"h": 8, "w": 12, "x": number % 2 * 12, "y": number // 2 * 8},
            "datasource": {"type": "prometheus", "uid": "${source}"},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + n), "expr": expression, "legendFormat": legend}
                for n, (expression, legend) in enumerate(shown)
            ],
        }
        for number, (title, unit, shown) in enumerate(PANELS)
    ]
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}
    document = {
        "uid": "towpath",
        "title": "Towpath",
        "tags": ["towpath"],
        "schemaVersion": 36,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }
    made = _object("v1", "ConfigMap", DASHBOARD_NAME, values)
    made["metadata"]["labels"]["grafana_dashboard"] = "1"
    return {**made, "data": {"towpath.json": json.dumps(document, indent=1) + "\n"}}
