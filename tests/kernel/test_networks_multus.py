"""A pod that Multus began, with Debian's plugins on the real kernel, is ended by Towpath's agent."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import base64
import json
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from network_node import DEBIAN, NetworkNode, executable, local
from shim_harness import Shim, shim
from test_networks import MACVLAN, api, fresh

from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import PODS
from towpath.migrate import networks
from towpath.migrate.conflist import parse
from towpath.migrate.multus import MultusConf
from towpath.migrate.node import Node
from towpath.migrate.place import Place
from towpath.migrate.plan import Facts

pytestmark = pytest.mark.kernel

CANAL = {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [
    {"type": "calico", "ipam": {"type": "host-local"}},
]}  # fmt: skip


def multus_add(node: NetworkNode, pod: str, config: dict[str, Any], folder: Path) -> None:
    """What Multus does for one further network: it calls the plugin, and both it and libcni remember."""
    given = node.environment(pod) | {"CNI_COMMAND": "ADD", "CNI_IFNAME": "net1"}
    done = subprocess.run(
        [DEBIAN / config["type"]], env=given, input=json.dumps(config).encode(), capture_output=True
    )
    assert done.returncode == 0, done.stdout
    text = base64.b64encode(json.dumps(config).encode()).decode()
    delegates = [
        {"Conf": {}, "ConfList": CANAL, "Name": "", "Bytes": base64.b64encode(b"{}").decode()},
        {"Conf": config, "ConfList": {}, "Name": "default/far", "Bytes": text},
    ]
    (folder / "results").mkdir(parents=True)
    (folder / pod).write_text(json.dumps(delegates))
    cached = {
        "kind": "cniCacheV1",
        "containerId": pod,
        "config": text,
        "ifName": "net1",
        "networkName": config["name"],
        "netns": given["CNI_NETNS"],
        "cniArgs": [pair.split("=") for pair in given["CNI_ARGS"].split(";")],
        "result": json.loads(done.stdout),
    }
    (folder / "results" / f"{config['name']}-{pod}-net1").write_text(json.dumps(cached))


class TheNode:
    def __init__(self, node: NetworkNode) -> None:
        self.boot_id, self.place = node.attach.boot_id, Place(state_dir=node.attach.folder)


async def test_the_agent_ends_what_multus_began(
    fresh: NetworkNode, api: FakeApiServer, tmp_path: Path
) -> None:
    folder = tmp_path / "multus"
    fresh.pod("p", "far")
    multus_add(fresh, "p", {**MACVLAN, "name": "far", "ipam": local("10.7.0.0/24")}, folder)
    assert "net1" in fresh.inside("p").links
    given = Facts(
        conf=parse("10-canal.conflist", json.dumps(CANAL)),
        tools=(),
        save_folder="",
        multus=MultusConf(file="00-multus.conf", text="", cni_dir=str(folder)),
    )
    await networks.import_networks(cast(Node, TheNode(fresh)), given, final=True)
    async with fresh.agent():
        assert await fresh.plugging.once()  # no network of a pod that Multus began is changed
        assert fresh.leftovers() != []
        api.remove(PODS, "p", "default")  # and the definition was never there
        await fresh.delete("p")
        assert "net1" not in fresh.inside("p").links
        assert fresh.leftovers() == []
