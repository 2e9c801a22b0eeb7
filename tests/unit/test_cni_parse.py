"""Network configurations: what is read, what is refused and with which code, what DEL forgives."""

import json
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import msgspec
import pytest

from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.parse import check_container_id, check_ifname, parse_net_conf, peek_version
from towpath.cni.result import Dns, IPConfig, RouteConf
from towpath.cni.types import NetConf, Range
from towpath.cni.version import SUPPORTED
from towpath.model.attachment import Bandwidth, PortMapping


def parse(**members: Any) -> NetConf:
    return parse_object({"type": "towpath-cni", **members})


def parse_object(members: dict[str, Any], lenient: bool = False) -> NetConf:
    config = {"cniVersion": "1.1.0", "name": "net", **members}
    return parse_net_conf(json.dumps(config).encode(), lenient=lenient)


def refused(data: bytes, lenient: bool = False) -> CniError:
    with pytest.raises(CniError) as caught:
        parse_net_conf(data, lenient=lenient)
    return caught.value


def test_the_least_there_can_be() -> None:
    assert parse_net_conf(b'{"name":"n"}') == NetConf(name="n", cni_version="0.1.0", raw=b'{"name":"n"}')
    assert parse_net_conf(b'{"name":"n","cniVersion":""}').cni_version == "0.1.0"


def test_every_capability() -> None:
    runtime = parse(
        runtimeConfig={
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": ""},
                {"hostPort": 99, "containerPort": 99, "protocol": "sctp", "hostIP": "::"},
                {"hostPort": 0, "containerPort": 7},
                {"hostPort": 81, "containerPort": 81},
            ],
            "bandwidth": {"ingressRate": 10, "ingressBurst": 20, "egressRate": 30, "egressBurst": 4294967295},
            "ips": ["10.42.0.9", "fd00::9/64"],
            "mac": "02-AA-BB-CC-DD-EE",
            "ipRanges": [[{"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.9"}], []],
            "dns": {"servers": ["10.43.0.10"], "searches": ["svc"], "options": ["ndots:5"]},
            "aliases": ["db", "primary", "db"],
        }
    ).runtime_config
    assert runtime.port_mappings == (
        PortMapping(host_port=8080, container_port=80, protocol="tcp", host_ip=ip_address("127.0.0.1")),
        PortMapping(host_port=53, container_port=53, protocol="udp"),
        PortMapping(host_port=99, container_port=99, protocol="sctp", host_ip=ip_address("::")),
        PortMapping(host_port=81, container_port=81),
    )
    assert runtime.bandwidth == Bandwidth(
        ingress_rate=10, ingress_burst=20, egress_rate=30, egress_burst=4294967295
    )
    assert runtime.ips == (ip_address("10.42.0.9"), ip_interface("fd00::9/64"))
    assert runtime.mac == "02:aa:bb:cc:dd:ee"
    assert runtime.ip_ranges == (
        (Range(subnet=ip_network("10.1.0.0/16"), start=ip_address("10.1.0.5"), end=ip_address("10.1.0.9")),),
    )
    assert runtime.dns == Dns(nameservers=("10.43.0.10",), search=("svc",), options=("ndots:5",))
    assert runtime.aliases == ("db", "primary")


def test_nothing_asked_is_nothing() -> None:
    runtime = parse(
        runtimeConfig={"bandwidth": {"ingressRate": 0}, "mac": "", "ips": None, "dns": None}
    ).runtime_config
    assert runtime == NetConf(name="n", cni_version="1.1.0").runtime_config


def test_podman_gives_aliases_by_network() -> None:
    aliases = parse(runtimeConfig={"aliases": {"net": ["a", "b"], "MAC": ["c"]}}).runtime_config.aliases
    assert aliases == ("a", "b", "c")


def test_args_cni_adds_to_what_the_runtime_asks() -> None:
    args = {
        "cni": {"ips": ["10.42.0.5", "10.42.0.6"], "mac": "02:00:00:00:00:05", "labels": [{"key": "app"}]}
    }
    config = parse(args=args, runtimeConfig={"ips": ["10.42.0.5"], "mac": "02:00:00:00:00:01"})
    assert config.runtime_config.ips == (ip_address("10.42.0.5"), ip_address("10.42.0.6"))
    assert config.runtime_config.mac == "02:00:00:00:00:01"
    assert config.args.cni["labels"] == [{"key": "app"}]
    assert parse(args=args).runtime_config.mac == "02:00:00:00:00:05"


def test_ipam_as_host_local_writes_it() -> None:
    ipam = parse(
        ipam={
            "type": "host-local",
            "subnet": "10.1.0.0/24",
            "rangeStart": "10.1.0.10",
            "gateway": "10.1.0.1",
            "ranges": [[{"subnet": "fd00:1::/64"}, {"subnet": "fd00:2::/64"}]],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "10.7.0.3/16"}],
            "dataDir": "/anything",
        }
    ).ipam
    assert ipam.type == "host-local"
    assert ipam.ranges == (
        (
            Range(
                subnet=ip_network("10.1.0.0/24"),
                start=ip_address("10.1.0.10"),
                gateway=ip_address("10.1.0.1"),
            ),
        ),
        (Range(subnet=ip_network("fd00:1::/64")), Range(subnet=ip_network("fd00:2::/64"))),
    )
    assert ipam.routes == (
        RouteConf(dst=ip_network("0.0.0.0/0"), gw=ip_address("10.1.0.1")),
        RouteConf(dst=ip_network("10.7.0.0/16")),
    )


def test_keys_match_in_any_case_as_in_go() -> None:
    config = parse_net_conf(
        b'{"CNIVERSION":"1.0.0","NAME":"n","MTU":1400,"disablecheck":"true","DisableGC":true,"DNS":{"Search":["x"]},'
        b'"RuntimeConfig":{"bandWidth":{"INGRESSRATE":5},"PortMappings":[{"HOSTPORT":1,"ContainerPort":2,"hostip":"1.2.3.4"}]},'
        b'"prevresult":{"IPS":[{"Address":"10.0.0.1/8"}]},"\xc5\xbfubnet":1}'
    )
    assert (config.cni_version, config.mtu, config.disable_check, config.disable_gc) == (
        "1.0.0",
        1400,
        True,
        True,
    )
    assert config.dns == Dns(search=("x",))
    assert config.runtime_config.bandwidth == Bandwidth(ingress_rate=5)
    assert config.runtime_config.port_mappings[0].host_ip == ip_address("1.2.3.4")
    assert config.prev_result is not None
    assert config.prev_result.ips == (IPConfig(address=ip_interface("10.0.0.1/8")),)


def test_of_keys_that_differ_in_case_the_last_counts() -> None:
    assert parse_net_conf(b'{"name":"n","mtu":1400,"MTU":1300}').mtu == 1300


@pytest.mark.parametrize("version", SUPPORTED)
def test_prev_result_without_a_version_is_of_the_configurations(version: str) -> None:
    legacy = version in ("0.1.0", "0.2.0")
    result = {"ip4": {"ip": "10.0.0.2/24"}} if legacy else {"ips": [{"address": "10.0.0.2/24"}]}
    for previous in (result, {**result, "cniVersion": version}):
        found = parse(cniVersion=version, prevResult=previous).prev_result
        assert found is not None
        assert found.ips == (IPConfig(address=ip_interface("10.0.0.2/24")),)


def test_gc_list_under_either_key() -> None:
    listed = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]
    pairs = (("a", "eth0"), ("b", "net1"))
    assert parse_object({"cni.dev/valid-attachments": listed}).valid_attachments == pairs
    assert parse_object({"cni.dev/attachments": listed}).valid_attachments == pairs
    both: dict[str, Any] = {"cni.dev/attachments": [], "cni.dev/valid-attachments": listed}
    assert parse_object(both).valid_attachments == pairs
    assert parse_object({"cni.dev/valid-attachments": []}).valid_attachments == ()


def test_no_gc_list_is_not_an_empty_one() -> None:
    """libcni sends null where the runtime passed none; taken for empty, it would collect every pod."""
    assert parse().valid_attachments is None
    assert (
        parse_object({"cni.dev/valid-attachments": None, "cni.dev/attachments": None}).valid_attachments
        is None
    )


@pytest.mark.parametrize("listed", ["all", [{"containerID": "a"}], [{"ifname": "eth0"}], [None], {}])
def test_a_gc_list_that_is_not_understood_collects_nothing(listed: Any) -> None:
    config = {"name": "n", "cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}
    assert refused(json.dumps(config).encode()).code == ErrorCode.UNDECODABLE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b'{"name":1}',
        b'{"name":"n","cniVersion":1}',
        b"\xff",
        b'{"name":"\xff"}',
        b'{"name":"n"}x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_configuration(data: bytes) -> None:
    assert refused(data).code == ErrorCode.UNDECODABLE


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a\n", ".", "a" + chr(0)])
def test_network_names(name: str) -> None:
    assert refused(json.dumps({"name": name}).encode()).code == ErrorCode.BAD_CONFIG


@pytest.mark.parametrize("version", ["0.0.1", "0.5.0", "1.2.0", "2", "1.1.0 ", "latest"])
def test_versions_we_do_not_speak(version: str) -> None:
    error = refused(
        json.dumps({"name": "n", "cniVersion": version, "mtu": "nonsense"}).encode(), lenient=True
    )
    assert error.code == ErrorCode.INCOMPATIBLE_VERSION
    assert "1.1.0" in error.details


BAD_VALUES: list[tuple[str, Any]] = [
    ("mtu", -1),
    ("mtu", 67),
    ("mtu", 65536),
    ("mtu", 10**30),
    ("disableCheck", "yes"),
    ("runtimeConfig", {"portMappings": [{"hostPort": 1, "containerPort": 0}]}),
    ("runtimeConfig", {"portMappings": [{"hostPort": 65536, "containerPort": 1}]}),
    ("runtimeConfig", {"portMappings": [{"hostPort": -1, "containerPort": 1}]}),
    ("runtimeConfig", {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]}),
    ("runtimeConfig", {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "localhost"}]}),
    ("runtimeConfig", {"bandwidth": {"ingressRate": -1}}),
    ("runtimeConfig", {"bandwidth": {"egressBurst": 1 << 62}}),
    ("runtimeConfig", {"ips": ["300.1.1.1"]}),
    ("runtimeConfig", {"ips": ["fe80::1%eth0"]}),
    ("runtimeConfig", {"mac": "01:00:5e:00:00:01"}),
    ("runtimeConfig", {"mac": "00:00:00:00:00:00"}),
    ("runtimeConfig", {"mac": "2:0:0:0:0:1"}),
    ("runtimeConfig", {"ipRanges": [[{"subnet": "10.1.0.1/16"}]]}),
    ("runtimeConfig", {"ipRanges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "fd00::/64"}]]}),
    ("args", {"cni": {"ips": ["x"]}}),
    ("ipam", {"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}),
    ("ipam", {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
    ("ipam", {"subnet": "10.1.0.0/24", "gateway": "fd00::1"}),
    ("ipam", {"routes": [{"dst": "everywhere"}]}),
]
BAD_TYPES: list[tuple[str, Any]] = [
    ("mtu", "1500"),
    ("mtu", 1500.5),
    ("type", []),
    ("dns", []),
    ("dns", {"nameservers": "8.8.8.8"}),
    ("args", "x"),
    ("args", {"cni": {"ips": "10.0.0.1"}}),
    ("ipam", 1),
    ("runtimeConfig", {"portMappings": {"80": 80}}),
    ("runtimeConfig", {"bandwidth": [1]}),
    ("runtimeConfig", {"ips": [1]}),
    ("runtimeConfig", {"aliases": "x"}),
    ("prevResult", []),
    ("prevResult", {"ips": [{"address": "10.0.0.1"}]}),
    ("prevResult", {"ips": [{"address": 1}]}),
    ("prevResult", {"routes": [{"dst": "x"}]}),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_values_that_make_no_sense(key: str, value: Any) -> None:
    error = refused(json.dumps({"name": "n", "cniVersion": "1.1.0", key: value}).encode())
    assert error.code == ErrorCode.BAD_CONFIG
    assert error.msg.startswith(key)


@pytest.mark.parametrize(("key", "value"), BAD_TYPES)
def test_values_of_the_wrong_type(key: str, value: Any) -> None:
    error = refused(json.dumps({"name": "n", "cniVersion": "1.1.0", key: value}).encode())
    assert error.code == ErrorCode.UNDECODABLE


@pytest.mark.parametrize(("key", "value"), BAD_VALUES + BAD_TYPES)
def test_nothing_that_was_once_configured_can_keep_a_pod_from_being_deleted(key: str, value: Any) -> None:
    config, blank = parse_object({key: value}, lenient=True), parse_object({})
    got = msgspec.structs.replace(config, raw=b"", args=blank.args)
    assert got == msgspec.structs.replace(blank, raw=b"")


def test_a_previous_result_of_an_unknown_version() -> None:
    config = {"name": "n", "cniVersion": "1.0.0", "prevResult": {"cniVersion": "3.0.0"}}
    assert refused(json.dumps(config).encode()).code == ErrorCode.INCOMPATIBLE_VERSION


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b'{"cniVersion":"0.4.0"}', "0.4.0"),
        (b"{}", "0.1.0"),
        (b"x", "1.1.0"),
        (b'{"cniVersion":"7"}', "1.1.0"),
        (b'{"cniVersion":[]}', "0.1.0"),
        (b'{"cniVersion":[1]}', "1.1.0"),
        (b'{"CniVersion":"0.2.0"}', "0.2.0"),
    ],
)
def test_the_version_errors_are_printed_in(data: bytes, version: str) -> None:
    assert peek_version(data) == version


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u2003b", "a\0", "x" * 16, "ä" * 8]
)
def test_interface_names_linux_would_refuse(name: str) -> None:
    with pytest.raises(CniError) as caught:
        check_ifname(name)
    assert caught.value.code == ErrorCode.BAD_ENVIRONMENT


def test_names_that_are_fine() -> None:
    for name in ("eth0", "x" * 15, "ä" * 7, "net-1.2_3", "..."):
        check_ifname(name)
    for container in ("a", "0f" * 32, "a_b.c-d"):
        check_container_id(container)


@pytest.mark.parametrize("container", ["", "-a", "_a", ".a", "a/b", "a b", "ä", "a\n"])
def test_container_ids(container: str) -> None:
    with pytest.raises(CniError) as caught:
        check_container_id(container)
    assert caught.value.code == ErrorCode.BAD_ENVIRONMENT
