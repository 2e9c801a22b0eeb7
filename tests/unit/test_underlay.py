"""Which interface carries the overlay."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any

import msgspec
import pytest

from towpath.agent.underlay import UnderlayUnknown, discover, on_link
from towpath.api.core import Node
from towpath.model.net import Address, Link, Route
from towpath.model.network import ClusterNetwork
from towpath.model.state import NetState

DUAL = ClusterNetwork(ipv4=IPv4Network("10.42.0.0/16"), ipv6=IPv6Network("fd00:10:42::/56"))
STATE = NetState(
    links={name: Link(name=name, mtu=mtu) for name, mtu in (("eth0", 1500), ("eth1", 9000), ("lo", 65536))},
    addresses=frozenset(
        Address(dev=dev, interface=ip_interface(text))
        for dev, text in (
            ("eth0", "192.0.2.11/24"),
            ("eth0", "2001:db8::11/64"),
            ("eth1", "198.51.100.11/24"),
            ("eth1", "198.51.100.12/24"),
            ("eth1", "2001:db8:1::11/64"),
            ("flannel.1", "10.42.1.0/32"),
            ("lo", "127.0.0.1/8"),
        )
    ),
    routes=frozenset({Route(dst=ip_network("0.0.0.0/0"), dev="eth0", via=ip_address("192.0.2.1"))}),
)


def node(*internal: str, **annotations: str) -> Node:
    notes = {f"flannel.alpha.coreos.com/{k.replace('_', '-')}": v for k, v in annotations.items()}
    raw: dict[str, Any] = {
        "metadata": {"name": "n1", "annotations": notes},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in internal]},
    }
    return msgspec.convert(raw, Node)


def test_internal_ip_selects() -> None:
    underlay, findings = discover(node("198.51.100.12"), STATE, DUAL)
    assert (underlay.dev, underlay.mtu) == ("eth1", 9000)
    assert str(underlay.ipv4) == "198.51.100.12"
    assert str(underlay.ipv6) == "2001:db8:1::11"
    assert findings == ()


def test_dual_stack_internal_ips() -> None:
    underlay, _ = discover(node("192.0.2.11", "2001:db8::11"), STATE, DUAL)
    assert (str(underlay.ipv4), str(underlay.ipv6)) == ("192.0.2.11", "2001:db8::11")


def test_ipv6_only_takes_no_ipv4() -> None:
    only6 = ClusterNetwork(ipv6=IPv6Network("fd00:10:42::/56"))
    underlay, findings = discover(node("2001:db8:1::11"), STATE, only6)
    assert (underlay.dev, underlay.ipv4, str(underlay.ipv6)) == ("eth1", None, "2001:db8:1::11")
    assert not findings


@pytest.mark.parametrize(
    ("iface", "dev"), [("eth1", "eth1"), ("198.51.100.12", "eth1"), ("2001:db8::11", "eth0")]
)
def test_iface_overrides(iface: str, dev: str) -> None:
    underlay, _ = discover(node("192.0.2.11"), STATE, DUAL, iface)
    assert underlay.dev == dev
    if iface == "198.51.100.12":
        assert str(underlay.ipv4) == iface


def test_unknown_iface() -> None:
    with pytest.raises(UnderlayUnknown, match="TP1010 Node/n1: iface 'eth7'"):
        discover(node("192.0.2.11"), STATE, DUAL, "eth7")


def test_annotation_overrides_internal_ip() -> None:
    underlay, _ = discover(node("192.0.2.11", node_public_ip="198.51.100.12"), STATE, DUAL)
    assert (underlay.dev, str(underlay.ipv4)) == ("eth1", "198.51.100.12")
    underlay, _ = discover(node("192.0.2.11", node_public_ipv6="2001:db8:1::11"), STATE, DUAL)
    assert underlay.dev == "eth1"


def test_annotation_that_is_not_here() -> None:
    with pytest.raises(UnderlayUnknown, match="use public-ip-overwrite instead"):
        discover(node("192.0.2.11", node_public_ip="203.0.113.9"), STATE, DUAL)


def test_overwrite_is_for_peers_only() -> None:
    underlay, _ = discover(node("192.0.2.11", public_ip_overwrite="203.0.113.9"), STATE, DUAL)
    assert str(underlay.ipv4) == "192.0.2.11"


def test_default_route_as_a_last_resort() -> None:
    underlay, [finding] = discover(node("203.0.113.9"), STATE, DUAL)
    assert underlay.dev == "eth0"
    assert (finding.code, finding.severity) == ("TP1011", "warning")
    bare = msgspec.structs.replace(STATE, routes=frozenset())
    with pytest.raises(UnderlayUnknown, match=r"203\.0\.113\.9"):
        discover(node("203.0.113.9", "garbage"), bare, DUAL)


def test_a_family_without_address_is_named() -> None:
    bare = msgspec.structs.replace(
        STATE, addresses=frozenset(a for a in STATE.addresses if a.interface.version == 4)
    )
    underlay, [finding] = discover(node("192.0.2.11"), bare, DUAL)
    assert underlay.ipv6 is None
    assert "IPv6: interface eth0 has no address" in finding.message


def test_on_link_is_longest_prefix_match() -> None:
    routes = frozenset(
        {
            *STATE.routes,
            Route(dst=ip_network("198.51.100.128/25"), dev="eth1", via=ip_address("198.51.100.1")),
            Route(dst=ip_network("203.0.113.0/24"), dev="eth1", scope="link"),
            Route(dst=ip_network("203.0.113.7/32"), dev="eth1", via=ip_address("198.51.100.1")),
            Route(dst=ip_network("8.8.8.0/24"), dev="eth1", table=100),
        }
    )
    state = msgspec.structs.replace(STATE, routes=routes)
    asked = [
        ip_address(a)
        for a in (
            "192.0.2.99",
            "198.51.100.5",
            "198.51.100.200",
            "203.0.113.6",
            "203.0.113.7",
            "8.8.8.8",
            "2001:db8::77",
            "2001:db8:9::1",
        )
    ]
    direct = {str(a) for a in on_link(asked, state)}
    assert direct == {"192.0.2.99", "198.51.100.5", "203.0.113.6", "2001:db8::77"}
