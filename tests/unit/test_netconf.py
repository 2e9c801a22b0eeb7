import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.api.flannel import parse_net_conf
from towpath.api.netconf import NetConfError
from towpath.model.network import ClusterNetwork

# As the rke2-canal chart renders it.
CANAL = """{
  "Network": "10.42.0.0/16",
  "IPv6Network": "fd00:10:42::/56",
  "EnableIPv4": true,
  "EnableIPv6": true,
  "EnableNFTables": false,
  "Backend": {
    "Type": "vxlan"
  }
}"""


def test_what_canal_ships() -> None:
    assert parse_net_conf(CANAL) == ClusterNetwork(
        ipv4=IPv4Network("10.42.0.0/16"), ipv6=IPv6Network("fd00:10:42::/56")
    )


def test_defaults_are_flannels() -> None:
    conf = parse_net_conf('{"Network": "10.42.0.0/16", "Backend": {"Type": "host-gw"}}')
    assert (conf.ipv4, conf.ipv6, conf.backend) == (IPv4Network("10.42.0.0/16"), None, "host-gw")
    assert (conf.vni, conf.port, conf.mtu) == (1, 8472, 0)


def test_every_option_in_any_case() -> None:
    text = """{"network": "10.42.7.9/16", "enableipv6": false, "BACKEND": {"type": "VXLAN", "vni": 4096,
      "PORT": 4789, "mtu": 1400, "directrouting": true, "gbp": true, "learning": true}, "SubnetLen": 24}"""
    assert parse_net_conf(text) == ClusterNetwork(
        ipv4=IPv4Network("10.42.0.0/16"),
        vni=4096,
        port=4789,
        mtu=1400,
        direct_routing=True,
        gbp=True,
        learning=True,
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"Network": None}, "Network"),
        ({"Network": "10.42.0.0"}, "Network"),
        ({"Network": "fd00::/56"}, "Network"),
        ({"IPv6Network": "10.0.0.0/8"}, "IPv6Network"),
        ({"EnableIPv4": "yes"}, "EnableIPv4"),
        ({"EnableIPv4": False, "EnableIPv6": False}, "EnableIPv4 and EnableIPv6"),
        ({"Backend": None}, "Backend"),
        ({"Backend": {"Type": "wireguard"}}, "Backend.Type"),
        ({"Backend": {"Type": "vxlan", "VNI": 2**24}}, "Backend.VNI"),
        ({"Backend": {"Type": "vxlan", "Port": -1}}, "Backend.Port"),
        ({"Backend": {"Type": "vxlan", "MTU": "big"}}, "Backend.MTU"),
        ({"Backend": {"Type": "vxlan", "DirectRouting": 1}}, "DirectRouting"),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, Any], field: str) -> None:
    conf = {k: v for k, v in (json.loads(CANAL) | change).items() if v is not None}
    with pytest.raises(NetConfError) as caught:
        parse_net_conf(json.dumps(conf))
    assert caught.value.field == field
    assert caught.value.hint in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", b"\xff", "[" * 100_000])
def test_no_json(text: str | bytes) -> None:
    with pytest.raises(NetConfError, match=r"net-conf\.json: the text"):
        parse_net_conf(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.dictionaries(
            st.sampled_from(
                ["Network", "IPv6Network", "EnableIPv4", "EnableIPv6", "Backend", "Type", "VNI", "MTU"]
            ),
            x,
        ),
        max_leaves=12,
    )
)
def test_anything_else_is_an_error_of_its_own_kind(conf: Any) -> None:
    try:
        parse_net_conf(json.dumps(conf))
    except NetConfError as error:
        assert error.reason and error.hint
