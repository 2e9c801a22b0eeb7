"""The Helm chart, made from what ``render`` gives, so that the two cannot drift apart.

    python -m towpath.install.chart charts/towpath

The objects are rendered with marks in place of the values, and the marks become template expressions. The
chart's values are those of ``towpath install render --values``, and ``global``, which RKE2 sets.
"""

import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from towpath import __version__
from towpath.install import monitoring
from towpath.install.configuration import AGENT_CONFIG, DEFAULTS, NET_CONF, agent_config
from towpath.install.helper import NAME as HELPER
from towpath.install.render import BLOCK_RULES, NETWORK_IPAM_RULES, render, to_yaml
from towpath.install.values import Values

_IMAGE = (
    "{{ with .Values.global.systemDefaultRegistry }}{{ . }}/"
    '{{ $.Values.image | trimPrefix "docker.io/" }}{{ else }}{{ .Values.image }}{{ end }}'
)
# Marks that no text of ours contains, and what they become.
_TEXTS = {
    "image": ("mark.invalid/image:0", _IMAGE),
    "image_pull_policy": ("Never", "{{ .Values.image_pull_policy }}"),
    "namespace": ("mark-namespace", "{{ .Values.namespace }}"),
    "cpu_request": ("mark-cpu", "{{ .Values.cpu_request }}"),
    "memory_request": ("mark-memory", "{{ .Values.memory_request }}"),
    "cni_bin": ("/mark/cni-bin", "{{ .Values.cni_bin }}"),
    "cni_conf": ("/mark/cni-conf", "{{ .Values.cni_conf }}"),
    "conflist": ("mark.conflist", "{{ .Values.conflist }}"),
    "state": ("/mark/state", "{{ .Values.state }}"),
    "run": ("/mark/run", "{{ .Values.run }}"),
    "selinux_type": ("mark_t", "{{ .Values.selinux_type }}"),
    "seccomp_profile": ("mark-seccomp", "{{ .Values.seccomp_profile }}"),
    "metrics_tls_secret": ("mark-tls", "{{ .Values.metrics_tls_secret }}"),
}
_NUMBERS = {"uid": 2111111101, "gid": 2111111102, "health_port": 31119}
# Objects that are there on one condition, by name.
_OPTIONAL = {
    HELPER: ".Values.helper",
    monitoring.NAME: ".Values.metrics_tls_secret",
    monitoring.RULES_NAME: ".Values.alert_rules",
    monitoring.DASHBOARD_NAME: ".Values.dashboard",
}
_ALWAYS = ("takeover_image",)  # for `towpath node takeover`'s Job, which is no part of the chart

_NET_CONF = """{{- $conf := dict "EnableIPv4" false "EnableIPv6" false }}
{{- range .Values.cluster_cidrs }}
{{- if contains ":" . }}
{{- $_ := set $conf "EnableIPv6" true }}{{- $_ := set $conf "IPv6Network" . }}
{{- else }}
{{- $_ := set $conf "EnableIPv4" true }}{{- $_ := set $conf "Network" . }}
{{- end }}
{{- end }}
{{- $backend := dict "Type" .Values.backend }}
{{- if eq .Values.backend "vxlan" }}
{{- $_ := set $backend "VNI" (int .Values.vni) }}{{- $_ := set $backend "Port" (int .Values.port) }}
{{- if .Values.direct_routing }}{{- $_ := set $backend "DirectRouting" true }}{{- end }}
{{- end }}
{{- $_ := set $conf "Backend" $backend }}
{{- toPrettyJson $conf }}"""


def chart() -> dict[str, str]:
    """The chart's files by path. The same each time."""
    marks: dict[str, Any] = {key: mark for key, (mark, _) in _TEXTS.items()} | _NUMBERS
    all_of_it = dict.fromkeys(("migrating", "helper", "service_monitor", "alert_rules", "dashboard"), True)
    marked = msgspec.structs.replace(Values(), **all_of_it, **marks)
    objects = render(marked)
    files = {
        "Chart.yaml": _yaml(_about()),
        "values.yaml": _values(),
        "values.schema.json": _schema(),
        "templates/_configuration.tpl": _configuration(marked),
    }
    for thing in objects:
        name = thing["metadata"]["name"]
        file = name if name in _OPTIONAL and thing["kind"] != "ServiceMonitor" else thing["kind"].lower()
        files[f"templates/{file}.yaml"] = _optional(thing, _template(thing))
    return files


def _about() -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": "towpath",
        "description": "A Kubernetes pod network that can be upgraded without fear",
        "type": "application",
        "version": __version__,
        "appVersion": __version__,
        "kubeVersion": ">=1.22.0-0",
    }


def _values() -> str:
    known = {k: v for k, v in msgspec.to_builtins(Values()).items() if k not in _ALWAYS}
    about = "# What each means: docs/install.md. RKE2 itself sets global.\n"
    return about + _yaml({**known, "global": {"systemDefaultRegistry": ""}})


def _schema() -> str:
    (described,) = msgspec.json.schema_components([Values])[1].values()
    properties = {k: v for k, v in described["properties"].items() if k not in _ALWAYS}
    schema = {
        "$schema": "https://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {**properties, "global": {"type": "object"}},
        "additionalProperties": False,
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _configuration(marked: Values) -> str:
    settings = agent_config(marked)
    fixed = _only_if(
        _filled(_yaml(settings)), "network_conf_dir:", f'ne .Values.cni_conf "{DEFAULTS.cni_conf}"'
    )
    loopback = "{{ if not .Values.metrics_tls_secret }}127.0.0.1{{ end }}:"
    fixed = fixed.replace("health_address: :", f"health_address: '{loopback}").replace(
        "{{ int .Values.health_port }}\n", "{{ int .Values.health_port }}'\n"
    )
    fixed = _only_if(fixed, "health_tls_", ".Values.metrics_tls_secret")
    return (
        f'{{{{- define "towpath.netconf" -}}}}\n{_NET_CONF}\n{{{{- end }}}}\n\n'
        f'{{{{- define "towpath.agent" -}}}}\n{{{{- $fixed := fromYaml (include "towpath.fixed" .) }}}}\n'
        "{{- toYaml (merge (deepCopy .Values.agent) $fixed) }}\n{{- end }}\n\n"
        f'{{{{- define "towpath.fixed" -}}}}\n{fixed}{{{{- end }}}}\n'
    )


def _optional(thing: dict[str, Any], text: str) -> str:
    monitor = thing["kind"] == "ServiceMonitor"
    condition = ".Values.service_monitor" if monitor else _OPTIONAL.get(thing["metadata"]["name"])
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text


def _template(thing: dict[str, Any]) -> str:
    if thing["metadata"]["name"] == monitoring.DASHBOARD_NAME:
        return _filled(_literal(to_yaml((thing,))))
    if thing["kind"] == "ConfigMap":
        thing = {k: v for k, v in thing.items() if k != "data"}
        data = (
            f'data:\n  {NET_CONF}: |\n    {{{{- include "towpath.netconf" . | nindent 4 }}}}\n'
            f'  {AGENT_CONFIG}: |\n    {{{{- include "towpath.agent" . | nindent 4 }}}}\n'
        )
        return _filled(to_yaml((thing,))) + data
    text = _filled(to_yaml((thing,)))
    if thing["kind"] == "ClusterRole":
        by_blocks = '{{- if eq (default "podCIDR" .Values.agent.ipam_mode) "blocks" }}'
        text += f"{{{{- if .Values.agent.network_ipam }}}}\n{_yaml(list(NETWORK_IPAM_RULES))}{{{{- end }}}}\n"
        return f"{text}{by_blocks}\n{_yaml(list(BLOCK_RULES))}{{{{- end }}}}\n"
    if thing["kind"] != "DaemonSet":
        return text
    checksum = '{{ printf "%s%s" (include "towpath.netconf" .) (include "towpath.agent" .) | sha256sum }}'
    text = re.sub(r"(towpath.dev/config: )[0-9a-f]{64}", lambda m: m[1] + checksum, text)
    text = _only_if(text, "affinity:", ".Values.migrating")
    text = _only_if(text, "seLinuxOptions:", ".Values.selinux_type")
    if thing["metadata"]["name"] == HELPER:
        return text
    text = re.sub(r"( +)seccompProfile:\n +type: Localhost\n.*\n", _with_profile, text)
    for key in ("- name: metrics-tls", "scheme: HTTPS"):
        text = _only_if(text, key, ".Values.metrics_tls_secret")
    text = re.sub(r"type: RollingUpdate\n", "type: {{ .Values.update_strategy }}\n", text)
    return _only_if(text, "rollingUpdate:", 'eq .Values.update_strategy "RollingUpdate"')


def _with_profile(block: re.Match[str]) -> str:
    return f"{{{{- if .Values.seccomp_profile }}}}\n{block[0]}{{{{- end }}}}\n"


def _filled(text: str) -> str:
    for mark, expression in _TEXTS.values():
        text = text.replace(mark, expression)
    for key, number in _NUMBERS.items():
        text = text.replace(str(number), f"{{{{ int .Values.{key} }}}}")
    return text


def _literal(text: str) -> str:
    """Braces that are Grafana's and not Helm's."""
    return re.sub(r"{{|}}", lambda braces: f"{{{{ `{braces[0]}` }}}}", text)


def _only_if(text: str, key: str, condition: str) -> str:
    """``text`` with each block that begins at ``key`` in an ``if``. Raises ValueError: there is none."""
    lines = text.splitlines()
    found = [n for n, line in enumerate(lines) if line.strip().startswith(key)]
    if not found:
        raise ValueError(f"nothing begins with {key!r}")
    for first in reversed(found):
        depth = len(lines[first]) - len(lines[first].lstrip())
        last = first + 1
        while last < len(lines) and len(lines[last]) - len(lines[last].lstrip()) > depth:
            last += 1
        lines[first:last] = [f"{{{{- if {condition} }}}}", *lines[first:last], "{{- end }}"]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=200)


def main() -> None:
    """Write the chart into the folder that is named."""
    folder = Path(sys.argv[1])
    for name, content in chart().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


if __name__ == "__main__":
    main()
