"""Of the agents' settings (ConfigMap ``towpath-config``), what verdicts depend on: failsafe ports, the order
of Calico's policies, and how nodes reach each other's pods.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from towpath.agent.setting import Rejected, failsafes
from towpath.api.netconf import NetConfError, parse_net_conf
from towpath.cli.exit import USAGE, CliError
from towpath.model.failsafe import INBOUND, OUTBOUND, Failsafe, Failsafes
from towpath.policy.calico_order import CALICO_3_32, ERAS, CalicoEra
from towpath.policy.ir import Routing
from towpath.policy.world import ObjectKey

SETTINGS = ObjectKey("", "ConfigMap", "kube-system", "towpath-config")
_FILE, _NET_CONF = "agent.yaml", "net-conf.json"


def are_settings(raw: Mapping[str, Any]) -> bool:
    """Whether an object holds them; of whatever namespace: the agents are where the operator wants them."""
    metadata = raw.get("metadata")
    named = isinstance(metadata, Mapping) and metadata.get("name") == SETTINGS.name
    return raw.get("kind") == SETTINGS.kind and named


def failsafes_in(raw: Mapping[str, Any] | None) -> Failsafes:
    """Those of the settings, or as they are by default. CliError if the agents could not read them either."""
    settings = _settings(raw)
    return Failsafes(
        inbound=_read(settings, "failsafe_inbound", INBOUND),
        outbound=_read(settings, "failsafe_outbound", OUTBOUND),
    )


def era_in(raw: Mapping[str, Any] | None) -> CalicoEra:
    """How the agents order Calico's policies. CliError if they could not read it either."""
    value = _settings(raw).get("calico_order")
    if value is None:
        return CALICO_3_32
    if str(value) not in ERAS:
        raise _unreadable(_FILE, f"calico_order: {value!r} is none of {', '.join(ERAS)}")
    return ERAS[str(value)]


def routing_in(raw: Mapping[str, Any] | None) -> Routing:
    """Of the settings' network; the tunnel by default. CliError if the agents could not read it either."""
    text = _text(raw, _NET_CONF)
    if text is None:
        return "tunnel"
    try:
        network = parse_net_conf(text)
    except NetConfError as wrong:
        raise _unreadable(_NET_CONF, str(wrong)) from wrong
    if network.backend == "host-gw":
        return "direct"
    return "either" if network.direct_routing else "tunnel"


def _settings(raw: Mapping[str, Any] | None) -> Mapping[Any, Any]:
    text = _text(raw, _FILE)
    try:
        settings = yaml.safe_load(text) if text is not None else None
    except yaml.YAMLError as wrong:
        raise _unreadable(_FILE, " ".join(str(wrong).split())) from wrong
    return settings if isinstance(settings, Mapping) else {}


def _text(raw: Mapping[str, Any] | None, file: str) -> str | None:
    data = raw.get("data") if raw is not None else None
    text = data.get(file) if isinstance(data, Mapping) else None
    return text if isinstance(text, str) else None


def _read(settings: Mapping[Any, Any], name: str, default: tuple[Failsafe, ...]) -> tuple[Failsafe, ...]:
    value = settings.get(name)
    try:
        return default if value is None else failsafes(value)
    except Rejected as wrong:
        raise _unreadable(_FILE, f"{name}: {wrong}") from wrong


def _unreadable(file: str, problem: str) -> CliError:
    return CliError(f"{file} of ConfigMap {SETTINGS.name}: {problem}", USAGE)
