"""The agents' failsafe ports, from the settings they are started with (ConfigMap ``towpath-config``)."""

from collections.abc import Mapping
from typing import Any

import yaml

from towpath.agent.setting import Rejected, failsafes
from towpath.cli.exit import USAGE, CliError
from towpath.model.failsafe import INBOUND, OUTBOUND, Failsafe, Failsafes
from towpath.policy.world import ObjectKey

SETTINGS = ObjectKey("", "ConfigMap", "kube-system", "towpath-config")
_FILE = "agent.yaml"


def are_settings(raw: Mapping[str, Any]) -> bool:
    """Whether an object holds them; of whatever namespace: the agents are where the operator wants them."""
    metadata = raw.get("metadata")
    named = isinstance(metadata, Mapping) and metadata.get("name") == SETTINGS.name
    return raw.get("kind") == SETTINGS.kind and named


def failsafes_in(raw: Mapping[str, Any] | None) -> Failsafes:
    """Those of the settings, or as they are by default. CliError if the agents could not read them either."""
    data = raw.get("data") if raw is not None else None
    text = data.get(_FILE) if isinstance(data, Mapping) else None
    try:
        settings = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError as wrong:
        raise _unreadable(" ".join(str(wrong).split())) from wrong
    if not isinstance(settings, Mapping):
        settings = {}
    return Failsafes(
        inbound=_read(settings, "failsafe_inbound", INBOUND),
        outbound=_read(settings, "failsafe_outbound", OUTBOUND),
    )


def _read(settings: Mapping[Any, Any], name: str, default: tuple[Failsafe, ...]) -> tuple[Failsafe, ...]:
    value = settings.get(name)
    try:
        return default if value is None else failsafes(value)
    except Rejected as wrong:
        raise _unreadable(f"{name}: {wrong}") from wrong


def _unreadable(problem: str) -> CliError:
    return CliError(f"{_FILE} of ConfigMap {SETTINGS.name}: {problem}", USAGE)
