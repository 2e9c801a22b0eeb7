"""Where host endpoints stand, and the failsafe ports of the agent's configuration."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from policy_worlds import host
from towpath.agent.setting import Rejected, failsafes
from towpath.model.failsafe import EVERYWHERE, INBOUND, TCP, UDP, Failsafe
from towpath.policy.host_places import placed
from towpath.policy.ir import Endpoint

ADDRESSES = {ip_address("192.0.2.1"): "eth0", ip_address("fd00::1"): "eth0", ip_address("192.0.2.9"): "eth1"}


def at(name: str, interface: str = "", *addresses: str, node: str = "n1") -> Endpoint:
    return replace(host(name, *addresses), node=node, interface=interface)


def test_by_name_by_address_and_for_all() -> None:
    found = placed(
        "n1",
        [at("a", "eth5"), at("b", "", "192.0.2.1", "fd00::1"), at("c", "*"), at("d", "eth1", node="n2")],
        ADDRESSES,
    )
    assert found.interfaces == {
        "eth5": "HostEndpoint/a",
        "eth0": "HostEndpoint/b",
        "*": "HostEndpoint/c",
    }
    assert found.findings == ()


def test_one_whose_addresses_are_of_two_interfaces_stands_at_both() -> None:
    both = placed("n1", [at("a", "", "192.0.2.1", "192.0.2.9")], ADDRESSES)
    assert both.interfaces == dict.fromkeys(("eth0", "eth1"), "HostEndpoint/a")


def test_the_first_by_name_counts() -> None:
    found = placed("n1", [at("z", "eth0"), at("a", "", "192.0.2.1"), at("y", "*"), at("b", "*")], ADDRESSES)
    assert found.interfaces == {"eth0": "HostEndpoint/a", "*": "HostEndpoint/b"}
    assert [(f.code, f.object) for f in found.findings] == [
        ("TP5046", "HostEndpoint/y"),
        ("TP5046", "HostEndpoint/z"),
    ]


def test_addresses_nobody_has_stand_nowhere_and_it_is_said() -> None:
    found = placed("n1", [at("a", "", "203.0.113.1"), at("b", "", node="n2")], ADDRESSES)
    assert found.interfaces == {}
    (finding,) = found.findings
    assert (finding.code, finding.object) == ("TP5045", "HostEndpoint/a")
    assert "203.0.113.1" in finding.message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("tcp:22,udp:68", (Failsafe(TCP, 22), Failsafe(UDP, 68))),
        ("179", (Failsafe(TCP, 179),)),
        ("tcp:10.0.0.0/8:22", (Failsafe(TCP, 22, (ip_network("10.0.0.0/8"),)),)),
        ("udp:[fd00::/8]:53", (Failsafe(UDP, 53, (ip_network("fd00::/8"),)),)),
        ([{"protocol": "UDP", "port": 53}], (Failsafe(UDP, 53),)),
        ([{"port": 22, "net": "fd00::/8"}], (Failsafe(TCP, 22, (ip_network("fd00::/8"),)),)),
        (["tcp:22", "tcp:22"], (Failsafe(TCP, 22, EVERYWHERE),)),
        ("none", ()),
        ([], ()),
        (INBOUND, INBOUND),
    ],
)
def test_failsafes_as_felix_has_them(given: Any, meant: tuple[Failsafe, ...]) -> None:
    assert failsafes(given) == meant


@pytest.mark.parametrize(
    "given", ["tcp:0", "icmp:8", "tcp:10.0.0.0/40:22", "tcp:ssh", 7, [{"port": 22, "nets": []}], [{}]]
)
def test_failsafes_that_cannot_be_read_are_no_settings(given: Any) -> None:
    with pytest.raises(Rejected):
        failsafes(given)
