"""An agent without a cluster (a podman host): ready by itself, with nobody to ask or tell."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent_node import AgentNode, agent_node

from towpath.kernel.netns import new_netns, run_in
from towpath.model.net import Vxlan

SHIM = Path(__file__).parents[2] / "src/towpath/bin/towpath-cni"
pytestmark = pytest.mark.kernel


class Host:
    """The node and one container's namespace on it."""

    def __init__(self, node: AgentNode) -> None:
        self.node, self.netns = node, new_netns()
        shutil.copy2(SHIM, node.folder)
        (node.folder / "towpath-cni.socket").write_text(node.settings["cni_socket"])
        for key in ("kubeconfig", "net_conf"):
            del node.settings[key]
        node.settings["standalone"] = ["10.90.0.0/16", "fd00:90::/64"]

    async def call(self, command: str, container: str, args: str = "", **config: Any) -> Any:
        """The shim's answer, decoded."""
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{self.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
        }
        stdin = json.dumps({"cniVersion": "1.0.0", "name": "podman", "type": "towpath-cni", **config})

        def execute() -> str:
            path = self.node.folder / SHIM.name
            return run_in(
                self.node.netns,
                lambda: subprocess.run([path], input=stdin, env=env, capture_output=True, text=True).stdout,
            )

        answer = await asyncio.to_thread(execute)
        return json.loads(answer) if answer else None


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    with agent_node(tmp_path) as node:
        made = Host(node)
        node.start()
        await node.ready()
        yield made
        os.close(made.netns)


async def test_it_is_ready_without_an_api_and_attaches_containers(host: Host) -> None:
    assert host.node.get("/readyz")[1] == "[+]kernel ok\n[+]cni ok\nready\n"
    # Somebody may name a pod (a kubelet of static pods alone): there is nobody to ask about it.
    result = await host.call("ADD", "c1", "IgnoreUnknown=1;K8S_POD_NAMESPACE=d;K8S_POD_NAME=p;K8S_POD_UID=u")
    assert [ip["address"] for ip in result["ips"]] == ["10.90.0.2/32", "fd00:90::2/128"]
    seen = host.node.observe()
    assert seen.nft is not None
    for family, net in ((4, "10.90.0.0/16"), (6, "fd00:90::/64")):
        for name in (f"net{family}", f"local{family}"):
            assert [str(key[0]) for key in seen.nft.sets[name].elements] == [net]
    assert not [link for link in seen.links.values() if isinstance(link.kind, Vxlan)]
    own = await host.call("ADD", "c2", ipam={"subnet": "10.91.0.0/24"})
    assert (
        own["code"] == 7 and "outside of this host's networks (10.90.0.0/16, fd00:90::/64" in own["details"]
    )
    assert await host.call("DEL", "c1") is None
    assert not [name for name in host.node.observe().links if name.startswith("cali")]


async def test_overlays_are_none_of_its_business_and_mending_is(host: Host) -> None:
    host.node.ip("link add flannel.1 type vxlan id 1 dstport 8472 dev und0")
    result = await host.call("ADD", "c1")
    (link,) = (i["name"] for i in result["interfaces"] if i["name"].startswith("cali"))
    host.node.ip("route del 10.90.0.2 dev " + link)
    host.node.run("nft", "flush", "map", "inet", "towpath", "pod_to")  # refused, where the table is owned

    def mended() -> bool:
        seen = host.node.observe()
        routed = any(str(r.dst) == "10.90.0.2/32" for r in seen.routes)
        return routed and seen.nft is not None and bool(seen.nft.sets["pod_to"].elements)

    assert await host.node.until(mended) < 2
    assert "flannel.1" in host.node.observe().links


async def test_a_successor_takes_over_and_a_reboot_frees(host: Host, tmp_path: Path) -> None:
    first = await host.call("ADD", "c1")
    host.node.stop()
    host.node.start()
    await host.node.ready()
    assert await host.call("CHECK", "c1", cniVersion="0.4.0", prevResult=first) is None
    host.node.stop()
    (tmp_path / "boot").write_text("another\n")
    host.node.start(boot_id_file=str(tmp_path / "boot"), resync_seconds=1, lease_grace_seconds=0.1)
    await host.node.until(lambda: not any(name.startswith("cali") for name in host.node.observe().links))
    again = await host.call("ADD", "c2", "IP=10.90.0.2")
    assert again["ips"][0]["address"] == "10.90.0.2/32"
