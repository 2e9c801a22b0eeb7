"""The annotation of networks: the standard's examples, Multus's forms; refusals by word."""

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.multinet.annotation import NETWORKS, Selection, default_network, selections
from towpath.multinet.refusal import NetworkRefused


def refused(text: str) -> tuple[str, str]:
    with pytest.raises(NetworkRefused) as caught:
        selections(text)
    assert caught.value.fix
    return caught.value.code, str(caught.value)


def test_the_standards_short_form() -> None:
    """4.1.1 and 4.2.2."""
    assert selections("net-a,net-b,other-ns/net-c") == (
        Selection(name="net-a"),
        Selection(name="net-b"),
        Selection(name="net-c", namespace="other-ns"),
    )
    assert selections("net-a,net-a") == (Selection(name="net-a"),) * 2
    assert selections("example-namespace/attachment-name")[0].namespace == "example-namespace"


def test_multus_short_form_has_interfaces_and_white_space() -> None:
    assert selections(" ns/net-a@eth5 ,\n net.b@x") == (
        Selection(name="net-a", namespace="ns", interface="eth5"),
        Selection(name="net.b", interface="x"),
    )
    assert selections("") == selections("  \n") == ()


def test_the_standards_json_form() -> None:
    """4.1.2, and the examples of ips and mac."""
    text = """
      [
        {"name":"net-a"},
        {
          "name":"net-b",
          "ips": ["1.2.3.4"],
          "mac": "aa:bb:cc:dd:ee:ff"
        },
        {
          "name":"net-c",
          "namespace":"other-ns"
        }
      ]"""
    assert selections(text) == (
        Selection(name="net-a"),
        Selection(name="net-b", ips=(ip_address("1.2.3.4"),), mac="aa:bb:cc:dd:ee:ff"),
        Selection(name="net-c", namespace="other-ns"),
    )
    [both] = selections('[{"name":"net-b", "ips": ["10.2.2.42", "2001:db8::5"]}]')
    assert both.ips == (ip_address("10.2.2.42"), ip_address("2001:db8::5"))
    assert selections('[{"name":"net-b","mac":"02:23:45:67:89:01"}]')[0].mac == "02:23:45:67:89:01"


def test_every_key() -> None:
    [one] = selections(
        """[{"Name": "a", "namespace": "n", "interface": "data0", "ips": ["10.0.0.5/24", "fd00::5"],
        "mac": "02-AA-00-00-00-01", "default-route": ["10.0.0.1", "fd00::1"],
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "UDP", "hostIP": "10.9.9.9"}],
        "bandwidth": {"ingressRate": 1000, "IngressBurst": 10}, "infiniband-guid": "C2:B0:57:49:47:F1:00:14",
        "cni-args": {"any": {"thing": [1]}}, "deviceID": "0000:03:02.3", "ipam-claim-reference": "claim",
        "org.example.key": 1, "interfce": "x", "bandwidth2": null}]"""
    )
    assert one == Selection(
        name="a",
        namespace="n",
        interface="data0",
        ips=(ip_interface("10.0.0.5/24"), ip_address("fd00::5")),
        mac="02:aa:00:00:00:01",
        gateways=(ip_address("10.0.0.1"), ip_address("fd00::1")),
        port_mappings=({"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "10.9.9.9"},),
        bandwidth={"ingressRate": 1000, "ingressBurst": 10},
        infiniband_guid="c2:b0:57:49:47:f1:00:14",
        cni_args={"any": {"thing": [1]}},
        device_id="0000:03:02.3",
        ipam_claim="claim",
        unknown=("interfce",),
    )
    infiniband = ":".join(["80"] + ["11"] * 19)
    assert selections(f'[{{"name":"a","mac":"{infiniband}"}}]')[0].mac == infiniband


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("net-a,,net-b", "TP6001", "entry 2, character 7"),
        ("net-a,", "TP6001", "entry 2"),
        (
            "net-a, Net_b",
            "TP6001",
            "entry 2, character 8: 'Net_b' cannot be the name of an object: character 1 is 'N'",
        ),
        ("ns/", "TP6001", "name"),
        ("/net", "TP6001", "no namespace"),
        ("a/b/c", "TP6001", "namespace"),
        ("net@", "TP6001", "no interface"),
        ("net@sixteen-letters-", "TP6005", "longer than 15"),
        ("net@a b", "TP6005", "a b"),
        ("net@lo", "TP6005", "lo"),
        ('[{"name": "a"', "TP6001", "not JSON"),
        ('[{"name": "ä", x}]', "TP6001", "character 16, near"),
        ('{"name": "a"}', "TP6001", "a list of objects is wanted, not an object"),
        ('["a"]', "TP6001", "entry 1: an object is wanted, not a string"),
        ('[{"name": "a"}, {"namespace": "x"}]', "TP6001", "entry 2, name: it is missing"),
        ('[{"name": 1}]', "TP6001", "name: a string is wanted, not a number"),
        ('[{"name": "a", "ips": "1.2.3.4"}]', "TP6001", "ips: a list is wanted, not a string"),
        ('[{"name": "a", "ips": []}]', "TP6006", "empty"),
        ('[{"name": "a", "ips": ["1.2.3"]}]', "TP6006", "'1.2.3' is no IP address"),
        ('[{"name": "a", "ips": ["fe80::1%eth0"]}]', "TP6006", "no IP address"),
        ('[{"name": "a", "ips": ["224.0.0.1"]}]', "TP6006", "no address that an interface can have"),
        (
            '[{"name": "a", "mac": "01:00:5e:00:00:01"}]',
            "TP6006",
            "mac: '01:00:5e:00:00:01' is a multicast address",
        ),
        ('[{"name": "a", "mac": "00:00:00:00:00:00"}]', "TP6006", "all zero"),
        ('[{"name": "a", "mac": "02:00:00:00:00"}]', "TP6006", "no hardware address"),
        ('[{"name": "a", "default-route": ["10.0.0.0/8"]}]', "TP6006", "a network"),
        ('[{"name": "a", "default-route": ["10.0.0.1", "10.0.0.2"]}]', "TP6006", "one family"),
        ('[{"name": "a", "portMappings": [{"containerPort": 1}]}]', "TP6006", "hostPort: 0 is no port"),
        (
            '[{"name": "a", "portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}]',
            "TP6006",
            "icmp",
        ),
        (
            '[{"name": "a", "portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}]',
            "TP6006",
            "hostIP",
        ),
        ('[{"name": "a", "portMappings": [7]}]', "TP6001", "portMappings[0]"),
        ('[{"name": "a", "bandwidth": {"ingressRate": -1}}]', "TP6006", "ingressRate"),
        ('[{"name": "a", "infiniband-guid": "c2"}]', "TP6006", "GUID"),
        ('[{"name": "a", "interface": "a/b"}]', "TP6005", "interface"),
        ('[{"name": "a", "deviceID": "a\\u0000b"}]', "TP6006", "deviceID"),
    ],
)
def test_what_is_refused_and_where(text: str, code: str, words: str) -> None:
    found, message = refused(text)
    assert found == code
    assert message.startswith(NETWORKS)
    assert words in message


def test_only_one_network_can_be_the_default() -> None:
    assert default_network("") is None
    assert default_network("ns/a") == Selection(name="a", namespace="ns")
    with pytest.raises(NetworkRefused, match="only one"):
        default_network("a,b")


@given(st.one_of(st.text(max_size=60), st.text('[]{}",:@/ab1', max_size=60)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selections(text)
    except NetworkRefused as refusal:
        assert refusal.code in ("TP6001", "TP6005", "TP6006")


_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_INTERFACES = st.from_regex(r"[a-km-z][a-z0-9]{0,14}", fullmatch=True).filter(
    lambda n: n not in ("all", "default")
)


@given(st.lists(st.tuples(st.none() | _NAMES, _NAMES, st.none() | _INTERFACES), min_size=1, max_size=5))
def test_what_is_written_is_what_is_read(entries: list[tuple[str | None, str, str | None]]) -> None:
    words = [
        f"{namespace + '/' if namespace else ''}{name}{'@' + interface if interface else ''}"
        for namespace, name, interface in entries
    ]
    read = [(one.namespace or None, one.name, one.interface or None) for one in selections(", ".join(words))]
    assert read == entries
