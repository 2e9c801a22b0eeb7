"""CNI_ARGS: Kubernetes' pairs, podman's IP and MAC, and what nobody knows."""

from ipaddress import ip_address, ip_interface

import pytest

from towpath.cni.args import parse_args, with_args
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.types import NetConf, RuntimeConfig

CONFIG = NetConf(name="n", cni_version="1.1.0")


def refused(text: str) -> CniError:
    with pytest.raises(CniError) as caught:
        with_args(CONFIG, parse_args(text))
    assert caught.value.code == ErrorCode.BAD_ENVIRONMENT
    return caught.value


def test_pairs() -> None:
    kubernetes = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u"
    assert parse_args(f"IgnoreUnknown=1;{kubernetes};X=a=b;") == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "ns",
        "K8S_POD_NAME": "p",
        "K8S_POD_INFRA_CONTAINER_ID": "c",
        "K8S_POD_UID": "u",
        "X": "a=b",
    }
    assert parse_args("") == {}


@pytest.mark.parametrize("value", ["1", "true", "True", "TRUE"])
def test_unknown_keys_may_be_ignored_on_request(value: str) -> None:
    assert parse_args(f"X=1;IgnoreUnknown={value}")["X"] == "1"


@pytest.mark.parametrize("text", ["X=1;Y=2", "X=1;IgnoreUnknown=0", "X=;IgnoreUnknown=false"])
def test_unknown_keys_are_an_error_otherwise(text: str) -> None:
    assert "X" in refused(text).msg


@pytest.mark.parametrize(
    "text", ["K8S_POD_NAME", "=x", "IgnoreUnknown=maybe", "IgnoreUnknown=1;x", "IP=1.2.3", "MAC=z"]
)
def test_malformed(text: str) -> None:
    refused(text)


def test_ip_and_mac_join_what_the_runtime_asks_for() -> None:
    asked = with_args(CONFIG, parse_args("IP=10.88.0.5,fd00::5/64;MAC=02:00:00:00:00:0A")).runtime_config
    assert asked == RuntimeConfig(
        ips=(ip_address("10.88.0.5"), ip_interface("fd00::5/64")), mac="02:00:00:00:00:0a"
    )
    by_capability = RuntimeConfig(ips=(ip_address("10.88.0.4"),), mac="02:00:00:00:00:01")
    config = NetConf(name="n", cni_version="1.1.0", runtime_config=by_capability)
    both = with_args(config, parse_args("IP=10.88.0.5;MAC=02:00:00:00:00:0A")).runtime_config
    assert both.ips == (ip_address("10.88.0.4"), ip_address("10.88.0.5"))
    assert both.mac == "02:00:00:00:00:01"
    assert with_args(config, {}) is config
