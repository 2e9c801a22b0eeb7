"""The examples of CNI 1.1.0: what plugins of a chain are given, and what they answer.

Sources: SPEC.md, "Section 1: Example configuration", "Section 5: Error", "Appendix: Examples" (Add, Check and
Delete of ``dbnet``), with plugins that answer as they do there. One difference is meant: ``capabilities``
stays in what a plugin is given, where the specification removes it: libcni leaves it there, and every plugin
has been tried with libcni. The examples of the standard of annotations: test_networks_annotation.py.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from towpath.agent.network_builtin import Builtin
from towpath.agent.network_chains import Chains
from towpath.agent.network_plugins import PluginFailed, Plugins
from towpath.api.meta import ObjectMeta
from towpath.api.networks import NetworkAttachmentDefinition, NetworkSpec
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.cni.wire import Executed
from towpath.multinet.definition import definition
from towpath.multinet.derive import Call
from towpath.multinet.journal import Row

Document = dict[str, Any]

BRIDGE: Document = {
    "type": "bridge",
    "bridge": "cni0",
    "keyA": ["some more", "plugin specific", "configuration"],
    "ipam": {
        "type": "host-local",
        "subnet": "10.1.0.0/16",
        "gateway": "10.1.0.1",
        "routes": [{"dst": "0.0.0.0/0"}],
    },
    "dns": {"nameservers": ["10.1.0.1"]},
}
TUNING: Document = {
    "type": "tuning",
    "capabilities": {"mac": True},
    "sysctl": {"net.core.somaxconn": "500"},
}
PORTMAP: Document = {"type": "portmap", "capabilities": {"portMappings": True}}
DBNET: Document = {
    "cniVersion": "1.1.0",
    "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    "name": "dbnet",
    "plugins": [BRIDGE, TUNING, PORTMAP],
}
MAC = {"mac": "00:11:22:33:44:66"}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
ENVIRONMENT = {
    "CNI_CONTAINERID": "blue",
    "CNI_NETNS": "/var/run/netns/blue",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "argA=foo",
    "CNI_PATH": "/opt/cni/bin",
}


def result(mac: str) -> Document:
    """The attachment's, with the MAC address of the interface in the container."""
    interfaces = [
        {"name": "cni0", "mac": "00:11:22:33:44:55"},
        {"name": "veth3243", "mac": "55:44:33:22:11:11"},
        {"name": "eth0", "mac": mac, "sandbox": "/var/run/netns/blue"},
    ]
    return {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "interfaces": interfaces,
        "dns": {"nameservers": ["10.1.0.1"]},
    }


FIRST, LAST = result("99:88:77:66:55:44"), result(MAC["mac"])


class Executables:
    """Answer as those of the examples, or with ``refusal``; ``calls`` is what they were given."""

    def __init__(self, refusal: Document | None = None) -> None:
        self.calls: list[tuple[str, str, Document]] = []
        self._refusal = refusal

    async def run(self, path: str, env: Mapping[str, str], stdin: bytes, _: float | None) -> Executed:
        kind, command = path.rpartition("/")[2], env["CNI_COMMAND"]
        if command in ("ADD", "DEL", "CHECK"):
            assert env == {"CNI_COMMAND": command, **ENVIRONMENT}
        self.calls.append((command, kind, json.loads(stdin)))
        if self._refusal is not None:
            return Executed(1, json.dumps(self._refusal).encode(), b"")
        answers = {"bridge": FIRST, "tuning": LAST, "portmap": LAST}
        return Executed(0, json.dumps(answers[kind]).encode() if command == "ADD" else b"", b"")


class NoneOfOurs:
    """Nothing is done without executing a plugin."""

    def does(self, _: Document) -> bool:
        return False


def call() -> Call:
    """What the runtime of the examples makes of the configuration."""
    nad = NetworkAttachmentDefinition(
        metadata=ObjectMeta(name="dbnet", namespace="default"), spec=NetworkSpec(config=json.dumps(DBNET))
    )
    found = definition(nad, None)
    return Call(
        container_id="blue",
        netns="/var/run/netns/blue",
        ifname="eth0",
        network=found.network,
        version=found.version,
        plugins=found.plugins,
        args="argA=foo",
        runtime={**MAC, **PORTS},
    )


def row(done: Document | None) -> Row:
    return Row(call=call(), place=1, main="eth0", runtime_network="", reference="", boot_id="", result=done)


def request(command: str, executables: Executables) -> Request:
    config = parse_net_conf(json.dumps({"cniVersion": "1.1.0", "name": "dbnet", "type": "bridge"}).encode())
    return Request(command=command, config=config, path=("/opt/cni/bin",), executor=executables.run)


def chains() -> Chains:
    return Chains(Plugins(10), cast(Builtin, NoneOfOurs()))


def given(plugin: Document, **more: Any) -> Document:
    """The execution configuration of a plugin."""
    return {"cniVersion": "1.1.0", "name": "dbnet", **plugin, **more}


def test_the_configuration() -> None:
    found = call()
    assert (found.network, found.version) == ("dbnet", "1.1.0")
    assert [plugin["type"] for plugin in found.plugins] == ["bridge", "tuning", "portmap"]


async def test_add() -> None:
    executables = Executables()
    assert await chains().add(request("ADD", executables), row(None)) == LAST
    assert executables.calls == [
        ("ADD", "bridge", given(BRIDGE)),
        ("ADD", "tuning", given(TUNING, runtimeConfig=MAC, prevResult=FIRST)),
        ("ADD", "portmap", given(PORTMAP, runtimeConfig=PORTS, prevResult=LAST)),
    ]


async def test_check() -> None:
    executables = Executables()
    await chains().check(request("CHECK", executables), row(LAST))
    assert executables.calls == [
        ("CHECK", "bridge", given(BRIDGE, prevResult=LAST)),
        ("CHECK", "tuning", given(TUNING, runtimeConfig=MAC, prevResult=LAST)),
        ("CHECK", "portmap", given(PORTMAP, runtimeConfig=PORTS, prevResult=LAST)),
    ]


async def test_delete() -> None:
    executables = Executables()
    await chains().delete(request("DEL", executables), row(LAST), "/var/run/netns/blue")
    assert executables.calls == [
        ("DEL", "portmap", given(PORTMAP, runtimeConfig=PORTS, prevResult=LAST)),
        ("DEL", "tuning", given(TUNING, runtimeConfig=MAC, prevResult=LAST)),
        ("DEL", "bridge", given(BRIDGE, prevResult=LAST)),
    ]


async def test_status_and_gc() -> None:
    executables = Executables()
    await chains().ready(request("STATUS", executables), call(), own=False, seconds=10)
    assert [(command, kind) for command, kind, _ in executables.calls] == [
        ("STATUS", "bridge"),
        ("STATUS", "tuning"),
        ("STATUS", "portmap"),
    ]
    executables.calls.clear()
    await chains().collect(request("GC", executables), call(), [("blue", "eth0")], own=False)
    valid = [{"containerID": "blue", "ifname": "eth0"}]
    told = {
        "cni.dev/valid-attachments": valid,
        "cni.dev/attachments": valid,
    }  # the latter: libcni 1.1.0's slip
    assert executables.calls == [
        ("GC", kind["type"], given(kind, **told)) for kind in (BRIDGE, TUNING, PORTMAP)
    ]


async def test_an_error() -> None:
    words = "Network 192.168.0.0/31 too small to allocate from."
    refusal = {"cniVersion": "1.1.0", "code": 7, "msg": "Invalid Configuration", "details": words}
    with pytest.raises(PluginFailed, match=f"plugin bridge: ADD: Invalid Configuration: {words}") as refused:
        await chains().add(request("ADD", Executables(refusal)), row(None))
    assert refused.value.code == 7
