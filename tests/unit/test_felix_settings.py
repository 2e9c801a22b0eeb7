"""What Felix was told beside policies is not lost on the way to Towpath unsaid."""

from typing import Any

import pytest

from towpath.cli.felix_settings import differences

SSH = [{"protocol": "tcp", "port": 22}, {"protocol": "udp", "port": 68, "net": "10.0.0.0/8"}]


def felix(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "default"}, "spec": spec}


def settings(text: str) -> dict[str, Any]:
    return {"metadata": {"name": "towpath-config"}, "data": {"agent.yaml": text}}


@pytest.mark.parametrize(
    ("spec", "text", "told"),
    [
        ({}, "", ""),
        ({"failsafeInboundHostPorts": SSH}, "failsafe_inbound: 'tcp:22,udp:10.0.0.0/8:68'", ""),
        ({"failsafeInboundHostPorts": SSH}, "", "write it into the setting failsafe_inbound"),
        ({"failsafeInboundHostPorts": []}, "", "write it into the setting failsafe_inbound"),
        ({"failsafeOutboundHostPorts": []}, "failsafe_outbound: none", ""),
        ({"failsafeOutboundHostPorts": [{"port": 0}]}, "", "failsafeOutboundHostPorts: "),
        ({"defaultEndpointToHostAction": "ACCEPT"}, "", ""),
        ({"defaultEndpointToHostAction": "Drop"}, "", "defaultEndpointToHostAction is Drop"),
        ({"workloadSourceSpoofing": "Any"}, "", "workloadSourceSpoofing is Any"),
    ],
)
def test_each_difference_is_named(spec: dict[str, Any], text: str, told: str) -> None:
    found = differences([felix(**spec)], {}, settings(text), host_endpoints=1)
    assert len(found) == bool(told) and told in "".join(found)
    assert all(one.startswith("FelixConfiguration/default: ") for one in found)


def test_failsafe_ports_matter_only_where_there_are_host_endpoints() -> None:
    wanted = felix(failsafeInboundHostPorts=SSH)
    assert differences([wanted], {}, None, host_endpoints=0) == []
    assert len(differences([wanted], {}, None, host_endpoints=1)) == 1


def test_the_environment_goes_before_the_resource() -> None:
    dropped = felix(defaultEndpointToHostAction="Drop", failsafeInboundHostPorts=[])
    chart = {"FELIX_DEFAULTENDPOINTTOHOSTACTION": "ACCEPT", "FELIX_FAILSAFEINBOUNDHOSTPORTS": "tcp:22"}
    assert differences([dropped], chart, settings("failsafe_inbound: tcp:22"), 1) == []
    (told,) = differences([dropped], chart, None, 1)
    assert told.startswith("calico-node's environment: failsafeInboundHostPorts")
