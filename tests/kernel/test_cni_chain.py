"""Towpath as a link in a chain with Debian's plugins, before and behind it, executed as libcni does it."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent_node import NODES, PODS, AgentNode, agent_node, node, pod

from patience import PATIENT
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, run_in
from towpath.model.state import NetState

PLUGINS = Path("/usr/lib/cni")
SHIM = Path(__file__).parents[2] / "src/towpath/bin/towpath-cni"
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (PLUGINS / "tuning").exists(), reason="containernetworking-plugins is not installed"
    ),
]

RATE = {
    "ingressRate": 8_000_000,
    "ingressBurst": 8_000_000,
    "egressRate": 8_000_000,
    "egressBurst": 8_000_000,
}
CAPABILITIES = {
    "portMappings": [{"hostPort": 8080, "containerPort": 9, "protocol": "udp"}],
    "bandwidth": RATE,
}
CHAIN: list[dict[str, Any]] = [
    {"type": "loopback"},
    {"type": "towpath-cni"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1400},
    {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
]


class Chain:
    """The list, its node and one pod."""

    def __init__(self, n1: AgentNode) -> None:
        self.node, self.netns = n1, new_netns()
        self._bin = n1.folder / "bin"
        self._bin.mkdir()
        shutil.copy2(SHIM, self._bin / "towpath-cni")
        (self._bin / "towpath-cni.socket").write_text(n1.settings["cni_socket"] + "\n")

    async def call(self, command: str, plugin: dict[str, Any], result: Any) -> Any:
        config = {"cniVersion": "1.0.0", "name": "chained", **plugin}
        config["runtimeConfig"] = {c: CAPABILITIES[c] for c in plugin.get("capabilities", {})}
        config["dataDir"] = str(self.node.folder / "plugins")  # tuning's, by default in the machine's /run
        if result is not None:
            config["prevResult"] = result
        folder = self._bin if plugin["type"] == "towpath-cni" else PLUGINS
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{self.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{self._bin}:{PLUGINS}",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        stdin = json.dumps(config).encode()

        def execute() -> subprocess.CompletedProcess[bytes]:
            return run_in(
                self.node.netns,
                lambda: subprocess.run([folder / plugin["type"]], input=stdin, env=env, capture_output=True),
            )

        done = await asyncio.to_thread(execute)
        assert done.returncode == 0, (plugin["type"], command, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout else None

    async def add(self) -> Any:
        result = None
        for plugin in CHAIN:
            result = await self.call("ADD", plugin, result)
        return result

    async def check(self, result: Any) -> None:
        for plugin in CHAIN:
            # Portmap 1.1.1 looks for the IPv4 address's rule among the IPv6 rules of a dual-stack pod.
            if plugin["type"] != "portmap":
                await self.call("CHECK", plugin, result)

    async def delete(self, result: Any) -> None:
        for plugin in reversed(CHAIN):
            await self.call("DEL", plugin, result)

    def inside(self) -> NetState:
        def look() -> NetState:
            kernel = LinuxKernel(nft=False)
            try:
                return kernel.observe(["net/ipv4/conf/eth0/arp_filter"])
            finally:
                kernel.close()

        return run_in(self.netns, look)


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    with agent_node(tmp_path) as n1:
        api = await n1.start_api()
        api.put(NODES, node(1))
        api.put(PODS, pod("a"))
        n1.start()
        await n1.ready()
        made = Chain(n1)
        yield made
        os.close(made.netns)
        n1.stop()
        await api.down()


async def test_debians_plugins_before_and_behind(chain: Chain) -> None:
    result = await chain.add()
    names = [i["name"] for i in result["interfaces"]]
    host = names[1]
    assert names[0] == "lo" and host.startswith("cali") and names[2] == "eth0" and names[3].startswith("bwp")
    assert [ip["address"] for ip in result["ips"] if ip["interface"] == 2] == [
        "10.42.1.2/32",
        "fd00:10:42:1::2/128",
    ]
    await chain.check(result)
    assert chain.inside().links["eth0"].mtu == 1400
    assert chain.inside().sysctls == {"net/ipv4/conf/eth0/arp_filter": "1"}
    await asyncio.sleep(1.2)  # the agent looks after its own, and has had its look by now
    seen = chain.node.observe()
    assert {s.dev for s in seen.shapers} == {host, names[3]}
    assert {(r.dev, r.ifb) for r in seen.redirects} == {(host, names[3])}
    await chain.check(result)
    assert await asyncio.to_thread(answers_on_host_port, chain)
    await chain.delete(result)
    left = [name for name in chain.node.observe().links if name.startswith(("cali", "bwp", "tpb"))]
    assert left == [] and set(chain.inside().links) == {"lo"}


@pytest.mark.parametrize("maker", [{"type": "ptp"}, {"type": "bridge", "bridge": "br0"}])
async def test_behind_a_plugin_that_makes_the_interface_it_refuses(
    chain: Chain, maker: dict[str, Any]
) -> None:
    """There is one eth0, and one to make it; what the first has made goes with the list's DEL."""
    ipam = {"type": "host-local", "subnet": "10.91.0.0/24", "dataDir": str(chain.node.folder / "plugins")}
    maker = {**maker, "ipam": ipam}
    towpath = {"type": "towpath-cni"}
    made = await chain.call("ADD", maker, None)
    with pytest.raises(AssertionError, match="before towpath-cni in the chain has made eth0 already"):
        await chain.call("ADD", towpath, made)
    assert "eth0" in chain.inside().links
    for plugin in (towpath, maker):
        await chain.call("DEL", plugin, None)
    assert set(chain.inside().links) == {"lo"}
    assert not [name for name in chain.node.observe().links if name.startswith(("cali", "veth"))]


def answers_on_host_port(chain: Chain) -> bool:
    """Whether a datagram to the node's port 8080 reaches port 9 of the pod and its answer comes back."""
    with run_in(chain.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.settimeout(PATIENT)
        server.bind(("0.0.0.0", 9))
        with run_in(chain.node.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(PATIENT)
            client.sendto(b"ping", ("172.30.0.11", 8080))
            data, peer = server.recvfrom(100)
            server.sendto(data + b" pong", peer)
            return client.recv(100) == b"ping pong"
