from ipaddress import ip_address

from attachments import attachment
from nodes import node, snapshot
from towpath.desired.hostports import conflicts, hostport_elements
from towpath.desired.node import node_state
from towpath.model.attachment import PortMapping

FOUR, SIX = ip_address("10.42.1.2"), ip_address("fd00::2")
WEB = PortMapping(host_port=8080, container_port=80)


def test_which_map_a_mapping_goes_to() -> None:
    ports = (
        WEB,
        PortMapping(host_port=53, container_port=53, protocol="udp", host_ip=ip_address("192.0.2.1")),
        PortMapping(host_port=54, container_port=53, protocol="udp", host_ip=ip_address("0.0.0.0")),
        PortMapping(host_port=55, container_port=53, protocol="sctp", host_ip=ip_address("::")),
        PortMapping(host_port=56, container_port=53, host_ip=ip_address("2001:db8::1")),
    )
    assert hostport_elements(attachment("a", str(FOUR), str(SIX), ports=ports)) == {
        "hostport4": {("tcp", 8080): (FOUR, 80), ("udp", 54): (FOUR, 53)},
        "hostport6": {("tcp", 8080): (SIX, 80), ("sctp", 55): (SIX, 53)},
        "hostport_ip4": {(ip_address("192.0.2.1"), "udp", 53): (FOUR, 53)},
        "hostport_ip6": {(ip_address("2001:db8::1"), "tcp", 56): (SIX, 53)},
    }
    assert set(hostport_elements(attachment("a", str(FOUR), ports=ports))) == {"hostport4", "hostport_ip4"}


def test_one_port_of_two_pods_stays_with_the_first_and_is_reported() -> None:
    a = attachment("a", "10.42.1.2", ports=(WEB,))
    b = attachment(
        "b", "10.42.1.3", ports=(WEB, PortMapping(host_port=8080, container_port=1, protocol="udp"))
    )
    assert [(h.container_id[0], x.container_id[0], key) for h, x, key in conflicts((a, b))] == [
        ("a", "b", ("tcp", 8080))
    ]
    desired = node_state(snapshot(node(1), attachments=(a, b)))
    assert [(f.code, f.object) for f in desired.findings] == [("TP3015", "Pod/default/b")]
    assert desired.state.nft is not None
    assert desired.state.nft.sets["hostport4"].elements == {
        ("tcp", 8080): (FOUR, 80),
        ("udp", 8080): (ip_address("10.42.1.3"), 1),
    }
