"""The whole table as text, for a few nodes. ``TOWPATH_UPDATE_GOLDEN=1`` writes what it is now."""

import os
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from attachments import attachment
from towpath.desired.protection import Peering
from towpath.desired.render import render
from towpath.desired.ruleset import ruleset
from towpath.model.attachment import PortMapping
from towpath.model.network import ClusterNetwork
from towpath.model.nft import NftChain, NftSet
from towpath.model.policy import CLASS4, NET_CLASS4, Program, Sampling

V4, V6 = IPv4Network("10.42.0.0/16"), IPv6Network("fd00:10:42::/56")
LOCAL4, LOCAL6 = ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64")
PORTS = (
    PortMapping(host_port=8080, container_port=80),
    PortMapping(host_port=5353, container_port=53, protocol="udp", host_ip=ip_address("192.0.2.1")),
    PortMapping(host_port=3868, container_port=3868, protocol="sctp", host_ip=ip_address("::")),
)
A, B = attachment("a", "10.42.1.2", "fd00:10:42:1::2"), attachment("b", "10.42.1.3", "fd00:10:42:1::3")
PEERING = Peering(
    tunnels=frozenset({ip_address("172.30.0.12"), ip_address("fd00:172:30::12")}),
    vteps=frozenset({ip_address("10.42.1.0"), ip_address("10.42.2.0"), ip_address("fd00:10:42:2::")}),
    direct=frozenset({ip_network("10.42.2.0/24"), ip_network("fd00:10:42:2::/64")}),
    away=frozenset({"eth0", "flannel.1", "flannel-v6.1"}),
)
POLICY = Program(
    sets={
        "class4": replace(
            CLASS4, elements={(ip_address("10.42.1.3"),): (5,), (ip_address("10.42.2.9"),): (0x10005,)}
        ),
        "net_class4": replace(NET_CLASS4, elements={(ip_network("192.0.2.0/24"),): (6,)}),
        "pi-1": NftSet(
            name="pi-1",
            key=("classid",),
            data=("verdict",),
            counter=True,
            elements={(5,): ("return",), (0x10005,): ("goto cs-1",)},
        ),
    },
    chains={
        "pi-1": NftChain(
            name="pi-1", rules=("jump src_class", "meta priority vmap @pi-1", "counter goto denied")
        ),
        "cs-1": NftChain(name="cs-1", rules=("meta l4proto 6 th dport 80 return", "counter goto denied")),
    },
    from_pod={A.host_ifname: ("return",), B.host_ifname: ("return",)},
    to_pod={A.host_ifname: ("goto pi-1",), B.host_ifname: ("return",)},
)
CASES: dict[str, tuple[Any, ...]] = {
    "empty": (ClusterNetwork(ipv4=V4, ipv6=V6), (), ()),
    "dual": (
        ClusterNetwork(ipv4=V4, ipv6=V6),
        (LOCAL4, LOCAL6),
        (
            attachment("a", "10.42.1.2", "fd00:10:42:1::2"),
            attachment("b", "10.42.1.3", "fd00:10:42:1::3", ports=PORTS),
        ),
    ),
    "policy": (
        ClusterNetwork(ipv4=V4, ipv6=V6),
        (LOCAL4, LOCAL6),
        (A, B, attachment("unknown", "10.42.1.4")),
        POLICY,
        PEERING,
    ),
    "revoking": (
        ClusterNetwork(ipv4=V4, ipv6=V6),
        (LOCAL4, LOCAL6),
        (A, B),
        replace(POLICY, revoking=True, sampling=Sampling(denials=0)),
        PEERING,
    ),
    "host-gw-no-masquerade": (
        ClusterNetwork(ipv4=V4, backend="host-gw", masquerade=False),
        (LOCAL4,),
        (A,),
        None,
        PEERING,
    ),
    "ipv4": (
        ClusterNetwork(ipv4=V4, random_fully=False),
        (LOCAL4,),
        (attachment("a", "10.42.1.2", ports=PORTS),),
    ),
    "ipv6-no-masquerade": (
        ClusterNetwork(ipv6=V6, masquerade=False),
        (LOCAL6,),
        (attachment("a", "fd00:10:42:1::2", ports=PORTS),),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_table(name: str) -> None:
    text = render(ruleset(*CASES[name]))
    golden = Path(__file__).with_name(f"{name}.nft")
    if os.environ.get("TOWPATH_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
