"""What annotations ask of a pod's addresses."""

from ipaddress import ip_address

import pytest

from towpath.agent.pod_wishes import hardware_address, read_wishes
from towpath.ipam.errors import BadWish

KEY = "cni.projectcalico.org/"


def test_the_pod_s_come_before_its_namespace_s() -> None:
    pod = {KEY + "ipv4pools": '["one", "10.0.0.0/16"]', KEY + "ipAddrs": '["10.0.0.7", "fd00::7"]'}
    found = read_wishes(pod, {KEY + "ipv4pools": '["two"]', KEY + "ipv6pools": '["six"]'})
    assert found.pools == {4: ("one", "10.0.0.0/16"), 6: ("six",)}
    assert found.addresses == (ip_address("10.0.0.7"), ip_address("fd00::7")) and not found.unmanaged
    assert read_wishes({KEY + "ipAddrsNoIpam": '["10.0.0.7"]'}, {}).unmanaged == (ip_address("10.0.0.7"),)
    # Addresses are asked for by pods alone: a namespace's would be every pod's.
    assert read_wishes({}, {KEY + "ipAddrs": '["10.0.0.7"]'}).addresses == ()


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("ipv4pools", "one", "is no JSON"),
        ("ipv4pools", '"one"', "JSON list"),
        ("ipv4pools", "[]", "JSON list"),
        ("ipv6pools", "[6]", "JSON list"),
        ("ipAddrs", '["10.0.0.300"]', "10.0.0.300"),
        ("ipAddrs", '["10.0.0.1", "10.0.0.2"]', "one family"),
        ("ipAddrsNoIpam", '["x"]', "ipAddrsNoIpam"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(key: str, text: str, said: str) -> None:
    with pytest.raises(BadWish, match=said):
        read_wishes({KEY + key: text}, {})


def test_both_kinds_of_addresses_exclude_each_other() -> None:
    with pytest.raises(BadWish, match="exclude"):
        read_wishes({KEY + "ipAddrs": '["10.0.0.1"]', KEY + "ipAddrsNoIpam": '["10.0.0.2"]'}, {})


def test_hardware_addresses() -> None:
    assert hardware_address({KEY + "hwAddr": "02:00:5E:10:00:01"}) == "02:00:5e:10:00:01"
    assert hardware_address({}) == ""
    for bad in ("02:00:5e:10:00", "01:00:5e:10:00:01", "00:00:00:00:00:00", "02-00-5e-10-00-01", "x"):
        with pytest.raises(BadWish, match="hwAddr"):
            hardware_address({KEY + "hwAddr": bad})
