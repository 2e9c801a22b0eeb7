"""Settings: three sources, one check, and errors that name key, source and fix."""

import json
from pathlib import Path

import pytest

from towpath.agent.__main__ import parse_flags
from towpath.agent.config import SETTINGS, ConfigError, Settings, load
from towpath.agent.main import AgentFailed, cluster_network

CONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'


def loaded(tmp_path: Path, text: str = "", flags: dict[str, str] | None = None, **env: str) -> Settings:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    return load({"node_name": "n1", "net_conf": CONF, **(flags or {})}, env, str(file))


def problems(tmp_path: Path, text: str = "", flags: dict[str, str] | None = None, **env: str) -> str:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text, flags, **env)
    return "\n".join(raised.value.problems)


def test_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert settings.cni_socket == Path("/run/towpath/cni.sock")
    assert settings.health_address == ("127.0.0.1", 9109)
    assert settings.masquerade is True


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    text = "resync_seconds: 10\nlog_level: debug\niface: eth0\n"
    env = {"TOWPATH_RESYNC_SECONDS": "20", "TOWPATH_LOG_LEVEL": "error"}
    settings = loaded(tmp_path, text, {"resync_seconds": "30"}, **env)
    assert (settings.resync_seconds, settings.log_level, settings.iface) == (30.0, "error", "eth0")


def test_json_is_yaml_too_and_net_conf_may_be_inline(tmp_path: Path) -> None:
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"node_name": "n2", "net_conf": json.loads(CONF), "offload_probe": False}))
    settings = load({"config": str(file)}, {})
    assert settings.node_name == "n2"
    assert not settings.offload_probe
    assert str(cluster_network(settings).ipv4) == "10.42.0.0/16"


def test_net_conf_from_a_file_and_flannels_flags(tmp_path: Path) -> None:
    file = tmp_path / "net-conf.json"
    file.write_text(CONF)
    settings = loaded(tmp_path, "masquerade: off\npod_mtu: 1400", {"net_conf": str(file)})
    network = cluster_network(settings)
    assert not network.masquerade
    assert network.pod_mtu == 1400


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = "resync_secs: 3\nlog_level: loud\nhealth_address: 0.0.0.0\n"
    told = problems(tmp_path, text, {"pod_mtu": "big"})
    assert "resync_secs" in told
    assert "did you mean resync_seconds?" in told
    assert "log_level (from" in told
    assert "one of debug, info, warning, error" in told
    assert "is not ADDRESS:PORT" in told
    assert "pod_mtu (from --pod-mtu): 'big' is not a number" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node_name: [a]", "is not text"),
        ("masquerade: perhaps", "neither true nor false"),
        ("resync_seconds: 0.1", "is not between 1 and 3600"),
        ("offload_port: 1.5", "is not a whole number"),
        ("cni_socket: run/x", "not an absolute path"),
        ("health_tls_cert: /nowhere", "is not a file"),
        ("- a list", "must hold `key: value` lines"),
        ("a: b: c", "is not YAML"),
        ("health_address: '[::]:9109'", "can be reached from outside"),
        ("boot_id_file: 7", "is not text"),
        ("resync_seconds: true", "is not a number"),
    ],
)
def test_bad_values(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load({} if "node_name" in text else {"node_name": "n1", "net_conf": CONF}, {}, str(file))
    assert words in str(raised.value)


@pytest.mark.parametrize("text", ["calico_order: 3.31", 'calico_order: "3.31"'])
def test_a_version_need_not_be_quoted(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).calico_order == "3.31"


def test_bad_node_name(tmp_path: Path) -> None:
    assert "cannot be the name of a Node" in problems(tmp_path, flags={"node_name": "No Way"})


def test_missing_net_conf(tmp_path: Path) -> None:
    assert "No such file" in problems(tmp_path, flags={"net_conf": "/nowhere.json"})


def test_a_named_file_must_exist_the_default_need_not(tmp_path: Path) -> None:
    load({"node_name": "n1", "net_conf": CONF}, {}, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="does not exist; check --config"):
        load({"config": str(tmp_path / "none")}, {})


def test_beyond_loopback_needs_tls_or_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    settings = loaded(tmp_path, f"health_address: ':9109'\nhealth_token_file: {token}")
    assert settings.health_address == ("::", 9109)
    assert "belong together" in problems(tmp_path, f"health_tls_cert: {token}")


def test_light_flags() -> None:
    assert parse_flags(["--node-name=a", "--iface", "eth0", "--config=/x"]) == {
        "node_name": "a",
        "iface": "eth0",
        "config": "/x",
    }
    for wrong in (["--nodename=a"], ["--iface"], ["a"]):
        with pytest.raises(AgentFailed) as raised:
            parse_flags(wrong)
        assert raised.value.usage


def test_the_table_and_the_struct_agree() -> None:
    assert tuple(s.name for s in SETTINGS) == Settings.__struct_fields__


def test_standalone_is_the_networks_of_a_host_without_a_cluster(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    for text in ('"10.90.0.7/16, fd00:90::/64"', '["fd00:90::/64", 10.90.0.0/16]'):
        file.write_text(f"node_name: host\nmasquerade: off\nstandalone: {text}\n")
        settings = load({}, {}, str(file))  # no net-conf.json is looked for
        network = cluster_network(settings)
        assert [str(net) for net in network.networks] == ["10.90.0.0/16", "fd00:90::/64"]
        assert not network.masquerade
    assert load({"standalone": "fd00:90::/64", "node_name": "host"}, {}).net_conf == ""
    assert loaded(tmp_path).standalone == ()


def test_standalone_says_what_it_cannot_be(tmp_path: Path) -> None:
    assert "write CIDRs" in problems(tmp_path, "standalone: true\n")
    assert "'10.90.0.1': is no CIDR" in problems(tmp_path, flags={"standalone": "10.90.0.1"})
    assert "name one that holds both" in problems(tmp_path, "standalone: 10.1.0.0/16,10.2.0.0/16\n")
    said = problems(tmp_path, "standalone: 10.1.0.0/16\n", TOWPATH_KUBECONFIG="/k")
    assert "net_conf (from --net-conf) belongs to a cluster" in said
    assert "kubeconfig (from TOWPATH_KUBECONFIG) belongs to a cluster" in said
