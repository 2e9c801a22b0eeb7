"""Networks whose device the kubelet has given to the pod: asked for through the real shim."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fake_kubelet import kubelet
from network_node import NetworkNode, executable
from shim_harness import Shim, shim
from test_networks import api, fresh, node

from towpath.api.networks import RESOURCE_NAME
from towpath.multinet.devices import CAPABILITY, FOLDER

pytestmark = pytest.mark.kernel

VF = "vendor.example/vf"
FIRST, SECOND = "0000:03:02.0", "0000:03:02.1"


def define(node: NetworkNode) -> None:
    """A network of VFs whose plugin keeps what it is given."""
    seen = node.attach.folder / "seen"
    node.script(f'cat >> {seen}; echo >> {seen}; echo \'{{"cniVersion": "1.0.0", "ips": []}}\'')
    config = {"cniVersion": "1.0.0", "type": "script", "capabilities": {"deviceID": True, CAPABILITY: True}}
    node.define("vf", config, **{RESOURCE_NAME: VF})


def given(node: NetworkNode) -> list[dict[str, Any]]:
    lines = (node.attach.folder / "seen").read_text().splitlines()
    return [json.loads(line) for line in lines if line]


async def test_each_network_takes_the_next_of_the_pods_devices(node: NetworkNode) -> None:
    define(node)
    folder = node.attach.folder / "dp"
    folder.mkdir()
    described = {"type": "pci", "version": "1.1.0", "pci": {"pci-address": FIRST}}
    (folder / f"vendor.example-vf-{FIRST}-device.json").write_text(json.dumps(described))
    node.pod("p", "vf,vf@data0")
    pods = {"default/other": {VF: ["x"]}, "default/p": {"cpu": ["1"], VF: [FIRST, SECOND]}}
    async with kubelet(node.attach.folder, pods):
        await node.add("p")
    first, second = given(node)
    assert (first["deviceID"], first["pciBusID"], second["deviceID"]) == (FIRST, FIRST, SECOND)
    assert first["runtimeConfig"] == {
        "deviceID": FIRST,
        CAPABILITY: f"{FOLDER}/dp/vendor.example-vf-{FIRST}-device.json",
    }
    _, one, two = node.status("p")
    assert (one["device-info"], "device-info" in two) == (described, False)
    # DEL has the same, without asking anybody.
    await node.delete("p")
    assert [call["deviceID"] for call in given(node)[2:]] == [SECOND, FIRST]
    assert node.leftovers() == []


async def test_a_device_that_the_annotation_names_is_not_asked_for(node: NetworkNode) -> None:
    define(node)
    node.pod("p", [{"name": "vf", "deviceID": "0000:05:00.0"}])
    await node.add("p")
    assert given(node)[0]["deviceID"] == "0000:05:00.0"


async def test_one_that_is_named_is_not_given_to_another(node: NetworkNode) -> None:
    define(node)
    node.pod("p", [{"name": "vf"}, {"name": "vf", "deviceID": FIRST}])
    async with kubelet(node.attach.folder, {"default/p": {VF: [FIRST, SECOND]}}):
        await node.add("p")
    assert [call["deviceID"] for call in given(node)] == [SECOND, FIRST]


async def test_too_few_devices(node: NetworkNode) -> None:
    define(node)
    node.pod("p", "vf,vf")
    async with kubelet(node.attach.folder, {"default/p": {VF: [FIRST]}}):
        code, text = await node.refused("ADD", "p")
    assert (code, "the pod has 1 devices of vendor.example/vf" in text, "TP6015" in text) == (7, True, True)
    assert [reason for reason, _ in await node.events("p")] == ["TP6015"]
    assert not (node.attach.folder / "seen").exists()


async def test_a_kubelet_that_does_not_know_the_pod_yet_is_asked_again(node: NetworkNode) -> None:
    define(node)
    node.pod("p", "vf")
    async with kubelet(node.attach.folder, {}) as lister:
        code, text = await node.refused("ADD", "p")
        assert (code, "does not know the pod" in text, lister.asked) == (11, True, 1)
        lister.pods = {"default/p": {VF: [FIRST]}}
        await node.add("p")


async def test_no_kubelet(node: NetworkNode) -> None:
    define(node)
    node.pod("p", "vf")
    code, text = await node.refused("ADD", "p")
    assert (code, "TP6026" in text, "No such file or directory" in text) == (11, True, True)


async def test_what_is_no_kubelet(node: NetworkNode) -> None:
    define(node)
    node.pod("p", "vf")

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    path = node.attach.folder / "pod-resources/kubelet.sock"
    path.parent.mkdir()
    server = await asyncio.start_unix_server(babble, path)
    code, text = await node.refused("ADD", "p")
    assert (code, "TP6026" in text) == (11, True)
    server.close()
    await server.wait_closed()
