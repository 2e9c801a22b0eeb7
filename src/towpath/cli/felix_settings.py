"""What FelixConfiguration decides of who is let through, against Towpath's settings: before a migration.

Agents do not read FelixConfiguration; what of it is to hold is written into their settings
(docs/guides/migrate-from-canal.md). Source of the fields: Calico's reference, "Felix configuration resource";
its "Configuring Felix" says that variables of calico-node's environment go before the resource. RKE2's chart
has ``FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT`` there.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from towpath.agent.setting import Rejected, failsafes
from towpath.cli.policy_settings import failsafes_in
from towpath.model.failsafe import Failsafes

_FAILSAFES = (("failsafeInboundHostPorts", "inbound"), ("failsafeOutboundHostPorts", "outbound"))
# By field, what Towpath does. Felix takes words in any case (its environment has ACCEPT).
_FIXED = (
    ("defaultEndpointToHostAction", "accept", "what policies let a pod send to its own node is accepted"),
    ("workloadSourceSpoofing", "disabled", "a pod sends from its own addresses only"),
)


def differences(
    configurations: Iterable[Mapping[str, Any]],
    environment: Mapping[str, str],
    settings: Mapping[str, Any] | None,
    host_endpoints: int,
) -> list[str]:
    """Each with the object's name. ``environment``: calico-node's; ``settings``: the agents' ConfigMap, None
    where there is none. Failsafe ports matter only where there are HostEndpoints. Raises CliError for
    settings that agents could not read.
    """
    ours, felt = failsafes_in(settings), _of_environment(environment)
    found = list(_of("calico-node's environment", felt, ours, host_endpoints))
    for raw in configurations:
        spec = {key: value for key, value in (raw.get("spec") or {}).items() if key not in felt}
        found += _of(f"FelixConfiguration/{raw['metadata']['name']}", spec, ours, host_endpoints)
    return found


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    fields = (field for field, *_ in (*_FAILSAFES, *_FIXED))
    return {field: value for field in fields if (value := environment.get(f"FELIX_{field.upper()}"))}


def _of(name: str, spec: Mapping[str, Any], ours: Failsafes, host_endpoints: int) -> Iterator[str]:
    for field, direction in _FAILSAFES if host_endpoints else ():
        if field not in spec:
            continue
        setting = f"failsafe_{direction}"
        try:
            same = set(failsafes(spec[field] or [])) == set(getattr(ours, direction))
        except Rejected as odd:
            yield f"{name}: {field}: {odd}"
            continue
        if not same:
            yield f"{name}: {field} is not what Towpath has; write it into the setting {setting}"
    for field, usual, told in _FIXED:
        if str(spec.get(field) or usual).lower() != usual:
            yield f"{name}: {field} is {spec[field]}; with Towpath {told}"
