"""The whole table as text, for a few nodes. ``TOWPATH_UPDATE_GOLDEN=1`` writes what it is now."""

import os
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest

from attachments import attachment
from towpath.desired.render import render
from towpath.desired.ruleset import ruleset
from towpath.model.attachment import Attachment, PortMapping
from towpath.model.net import Net
from towpath.model.network import ClusterNetwork

V4, V6 = IPv4Network("10.42.0.0/16"), IPv6Network("fd00:10:42::/56")
LOCAL4, LOCAL6 = ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64")
PORTS = (
    PortMapping(host_port=8080, container_port=80),
    PortMapping(host_port=5353, container_port=53, protocol="udp", host_ip=ip_address("192.0.2.1")),
    PortMapping(host_port=3868, container_port=3868, protocol="sctp", host_ip=ip_address("::")),
)
CASES: dict[str, tuple[ClusterNetwork, tuple[Net, ...], tuple[Attachment, ...]]] = {
    "empty": (ClusterNetwork(ipv4=V4, ipv6=V6), (), ()),
    "dual": (
        ClusterNetwork(ipv4=V4, ipv6=V6),
        (LOCAL4, LOCAL6),
        (
            attachment("a", "10.42.1.2", "fd00:10:42:1::2"),
            attachment("b", "10.42.1.3", "fd00:10:42:1::3", ports=PORTS),
        ),
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
