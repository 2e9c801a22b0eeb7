"""CNI as containerd executes it: what is loaded, what a plugin reads, what is cached."""

import json
from pathlib import Path

import pytest

from towpath.lab.kubelet_cni import (
    Call,
    Cni,
    CniFailed,
    NotConfigured,
    addresses,
    bandwidth,
    load,
    parse_list,
    plugin_config,
    pod_call,
)
from towpath.lab.kubelet_spec import Container, Pod, PodMeta, PodSpec, Port

LIST = {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "first"}, {"type": "second"}]}

# A plugin as a script: notes how it was called, answers with one address.
PLUGIN = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >> {log}
cat >> {log}.stdin; echo >> {log}.stdin
{fail}
if [ "$CNI_COMMAND" = ADD ]; then
  echo '{{"cniVersion":"1.1.0","ips":[{{"address":"10.42.0.2/32"}}]}}'
fi
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    for name in ("conf", "bin", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "conf" / "10-net.conflist").write_text(json.dumps(LIST))
    for name in ("first", "second"):
        plugin(tmp_path, name)
    return tmp_path


def plugin(folder: Path, name: str, fail: str = "") -> None:
    path = folder / "bin" / name
    path.write_text(PLUGIN.format(log=folder / name, fail=fail))
    path.chmod(0o755)


def cni(folder: Path) -> Cni:
    return Cni(folder / "conf", folder / "bin", folder / "cache")


def calls(folder: Path, name: str) -> list[str]:
    path = folder / name
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


CALL = Call(
    container_id="c1", netns="/run/netns/c1", args=(("IgnoreUnknown", "1"),), capabilities={"dns": {}}
)


def test_the_lexically_first_file_is_the_network(tmp_path: Path) -> None:
    (tmp_path / "20-b.conf").write_text(json.dumps({"name": "b", "type": "x"}))
    (tmp_path / "10-a.conflist").write_text(json.dumps({**LIST, "name": "a"}))
    (tmp_path / ".00-hidden.conf").write_text("{")
    (tmp_path / "00-readme.txt").write_text("no")
    assert load(tmp_path).name == "a"


def test_a_parse_error_in_the_first_file_fails_the_load(tmp_path: Path) -> None:
    (tmp_path / "10-a.conflist").write_text("{")
    (tmp_path / "20-b.conf").write_text(json.dumps({"name": "b", "type": "x"}))
    with pytest.raises(NotConfigured, match="10-a"):
        load(tmp_path)


def test_no_folder_and_no_file(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NotConfigured, match="no network config"):
            load(folder)


@pytest.mark.parametrize(
    "raw", [b"[]", b'{"name":"x","plugins":[]}', b'{"plugins":[{"type":"x"}]}', b"1", b"\xff"]
)
def test_half_a_configuration_is_none(raw: bytes) -> None:
    with pytest.raises(NotConfigured):
        parse_list(raw, "x")


def test_runtime_config_is_declared_and_supplied() -> None:
    network = parse_list(json.dumps(LIST).encode(), "x")
    declared = {"type": "x", "capabilities": {"portMappings": True, "mac": True, "dns": False}}
    config = json.loads(plugin_config(network, declared, {"portMappings": [1], "dns": {}}, {"ips": []}))
    assert config["runtimeConfig"] == {"portMappings": [1]}
    assert (config["name"], config["cniVersion"], config["prevResult"]) == ("net", "1.1.0", {"ips": []})
    assert "runtimeConfig" not in json.loads(plugin_config(network, {"type": "x"}, {"dns": {}}))


def test_what_containerd_derives_from_a_pod() -> None:
    pod = Pod(
        metadata=PodMeta(
            name="a", namespace="ns", uid="u", annotations={"kubernetes.io/ingress-bandwidth": "10M"}
        ),
        spec=PodSpec(
            containers=[
                Container(
                    name="c",
                    ports=[
                        Port(container_port=80, host_port=8080, protocol="SCTP", host_ip="127.0.0.1"),
                        Port(container_port=81),
                    ],
                )
            ]
        ),
    )
    call = pod_call(pod, "cid", "/n")
    assert dict(call.args) == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "ns",
        "K8S_POD_NAME": "a",
        "K8S_POD_INFRA_CONTAINER_ID": "cid",
        "K8S_POD_UID": "u",
    }
    assert call.capabilities["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "sctp", "hostIP": "127.0.0.1"}
    ]
    assert call.capabilities["bandwidth"] == {"ingressRate": 10_000_000, "ingressBurst": 2**32 - 1}


def test_bandwidth_quantities() -> None:
    assert bandwidth({"kubernetes.io/egress-bandwidth": "1.5Gi"})["egressRate"] == 1_610_612_736
    with pytest.raises(CniFailed, match="lots"):
        bandwidth({"kubernetes.io/egress-bandwidth": "lots"})


def test_addresses_of_old_and_new_results() -> None:
    assert addresses({"ips": [{"address": "10.0.0.1/24"}, {"address": "fd00::1/64"}]}) == [
        "10.0.0.1",
        "fd00::1",
    ]
    assert addresses({"ip4": {"ip": "10.0.0.1/24"}}) == ["10.0.0.1"]
    assert addresses({}) == []


async def test_add_runs_forward_and_del_backward_with_the_result(node: Path) -> None:
    runtime = cni(node)
    result = await runtime.add(CALL)
    assert addresses(result) == ["10.42.0.2"]
    assert "prevResult" in (node / "second.stdin").read_text()
    (cached,) = (node / "cache").iterdir()
    assert cached.name == "net-c1-eth0"
    assert json.loads(cached.read_text())["kind"] == "cniCacheV1"
    await runtime.delete(CALL)
    assert calls(node, "first") == calls(node, "second") == ["ADD", "DEL"]
    for name in ("first", "second"):
        assert "prevResult" in (node / f"{name}.stdin").read_text().splitlines()[-1]
    assert not list((node / "cache").iterdir())


async def test_del_after_a_reboot_uses_what_add_used(node: Path) -> None:
    await cni(node).add(CALL)
    (node / "conf" / "10-net.conflist").write_text(json.dumps({**LIST, "plugins": [{"type": "other"}]}))
    await cni(node).delete(Call(container_id="c1", netns="/run/netns/c1"))
    assert calls(node, "second") == ["ADD", "DEL"]
    assert (node / "second").read_text().splitlines()[1].split()[:3] == ["DEL", "c1", "eth0"]


async def test_a_damaged_cache_entry_is_dropped_and_del_still_runs(node: Path) -> None:
    await cni(node).add(CALL)
    (node / "cache" / "net-c1-eth0").write_text("{")
    await cni(node).delete(CALL)
    assert calls(node, "first") == ["ADD", "DEL"]
    assert not list((node / "cache").iterdir())


async def test_a_refusal_carries_the_plugins_words(node: Path) -> None:
    plugin(node, "second", """echo '{"code":11,"msg":"try later","details":"no lease"}'; exit 1""")
    with pytest.raises(
        CniFailed, match=r'plugin type="second" failed \(add\): try later; no lease \(code 11\)'
    ):
        await cni(node).add(CALL)
    assert not list((node / "cache").iterdir())


async def test_a_crash_without_words(node: Path) -> None:
    plugin(node, "first", "echo boom >&2; exit 2")
    with pytest.raises(CniFailed, match="netplugin failed: boom"):
        await cni(node).add(CALL)


async def test_status_needs_every_binary_and_asks_lists_of_1_1(node: Path) -> None:
    await cni(node).status()
    assert calls(node, "first") == ["STATUS"]
    plugin(node, "second", """echo '{"code":50,"msg":"not yet"}'; exit 1""")
    with pytest.raises(CniFailed, match="not yet"):
        await cni(node).status()
    (node / "conf" / "10-net.conflist").write_text(json.dumps({**LIST, "cniVersion": "1.0.0"}))
    await cni(node).status()
    (node / "bin" / "second").unlink()
    with pytest.raises(NotConfigured, match="second"):
        await cni(node).status()
