"""Debian's containernetworking-plugins as delegates: interfaces, addresses, and tuning in a chain."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from attach_node import run
from dhcp_server import dhcp_server
from network_node import DEBIAN, NetworkNode, executable, local
from shim_harness import Shim, shim
from test_networks import BRIDGE, MACVLAN, addresses, api, fresh, node

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.model.op import DelLink

pytestmark = pytest.mark.kernel

STATIC = {"type": "static", "addresses": [{"address": "10.6.0.7/24", "gateway": "10.6.0.1"}]}
CAPABILITIES = {"portmap": "portMappings", "bandwidth": "bandwidth"}
TUNING = {"type": "tuning", "mtu": 1300, "sysctl": {"net.ipv4.conf.net1.arp_filter": "1"}}


async def attached(node: NetworkNode, *plugins: dict[str, Any], version: str = "1.0.0") -> dict[str, Any]:
    """A pod in a network of these plugins, checked; its network-status of it."""
    node.define("n", {"cniVersion": version, "plugins": list(plugins)})
    node.pod("p", "n")
    result = await node.add("p")
    await node.call("CHECK", "p", {"prevResult": result})
    _, found = node.status("p")
    assert (found["name"], found["interface"], found["default"]) == ("default/n", "net1", False)
    return found


async def gone(node: NetworkNode) -> None:
    """DEL leaves nothing, and can be had again."""
    await node.delete("p")
    assert "net1" not in node.inside("p").links
    await node.delete("p")
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("plugin", "mtu"),
    [
        ({**MACVLAN, "mode": "private", "capabilities": {"mac": True, "ips": True, "aliases": True}}, 1300),
        ({**BRIDGE, "isGateway": True, "hairpinMode": True}, 1300),
        ({"type": "ptp", "mtu": 1400}, 1300),
    ],
    ids=["macvlan", "bridge", "ptp"],
)
async def test_interfaces_tuned_with_addresses_of_host_local(
    node: NetworkNode, plugin: dict[str, Any], mtu: int
) -> None:
    plugin = {key: value for key, value in plugin.items() if key != "cniVersion"}
    found = await attached(node, {**plugin, "ipam": local("10.5.0.0/24")}, TUNING)
    assert (found["ips"], found["mtu"]) == (["10.5.0.2"], mtu)
    link = node.inside("p").links["net1"]
    assert (link.mtu, link.mac) == (mtu, found["mac"])
    assert addresses(node, "p", "net1") == {"10.5.0.2/24"}
    assert run_in(node.attach.netns("p"), lambda: run("sysctl -n net.ipv4.conf.net1.arp_filter")) == "1\n"
    await gone(node)


async def test_a_device_of_the_node_goes_to_the_pod_and_comes_back(node: NetworkNode) -> None:
    run("ip link add dev7 type veth peer name dev8")
    try:
        found = await attached(node, {"type": "host-device", "device": "dev7", "ipam": STATIC})
        assert (found["ips"], addresses(node, "p", "net1")) == (["10.6.0.7"], {"10.6.0.7/24"})
        with closing(LinuxKernel(nft=False)) as kernel:
            assert "dev7" not in kernel.observe().links
        await gone(node)
        with closing(LinuxKernel(nft=False)) as kernel:
            assert "dev7" in kernel.observe().links
    finally:
        with closing(LinuxKernel(nft=False)) as kernel:
            kernel.apply([DelLink("dev8")])


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
async def test_versions_of_the_specification(node: NetworkNode, version: str) -> None:
    found = await attached(node, {"type": "ptp", "ipam": local("10.5.0.0/24")}, TUNING, version=version)
    assert found["ips"] == ["10.5.0.2"]
    await gone(node)


@pytest.fixture
def daemon() -> Iterator[None]:
    """Debian's DHCP daemon, where its plugin looks for it."""
    socket = Path("/run/cni/dhcp.sock")
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    process = subprocess.Popen([DEBIAN / "dhcp", "daemon"], stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.kill()
        process.communicate()
        socket.unlink(missing_ok=True)


async def test_addresses_of_dhcp(node: NetworkNode, daemon: None) -> None:
    await node.until(lambda: Path("/run/cni/dhcp.sock").exists())
    own = ip_interface("10.4.0.1/24")
    run("ip link add br7 type bridge")
    run(f"ip address add {own} dev br7")
    run("ip link set br7 up")
    with dhcp_server("br7", own, ip_address("10.4.0.9")) as got:  # type: ignore[arg-type]
        found = await attached(node, {"type": "bridge", "bridge": "br7", "ipam": {"type": "dhcp"}})
        assert (found["ips"], addresses(node, "p", "net1")) == (["10.4.0.9"], {"10.4.0.9/24"})
        await gone(node)
    assert got[:2] == [1, 3]


@pytest.fixture
def tables() -> Iterator[None]:
    """What iptables makes for a plugin goes with the test."""
    before = set(run("nft list tables").splitlines())
    yield
    for table in set(run("nft list tables").splitlines()) - before:
        if not table.endswith(" towpath"):
            run(f"nft delete {table}")


async def test_host_ports_and_bandwidth_that_a_pod_asks_for(tables: None, node: NetworkNode) -> None:
    ptp = {"type": "ptp", "ipam": local("10.5.0.0/24")}
    more = [{"type": kind, "capabilities": {key: True}} for kind, key in CAPABILITIES.items()]
    node.define("n", {"cniVersion": "1.0.0", "plugins": [ptp, *more]})
    ports = [{"hostPort": 8099, "containerPort": 80, "protocol": "tcp"}]
    rates = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000}
    node.pod("p", [{"name": "n", "portMappings": ports, "bandwidth": rates}])
    await node.add("p")
    assert "--to-destination 10.5.0.2:80" in run("iptables -t nat -S")
    assert run("tc qdisc show").count("qdisc tbf") == 2
    await node.delete("p")
    assert "10.5.0.2" not in run("iptables -t nat -S")
    assert "tbf" not in run("tc qdisc show")
    assert node.leftovers() == []
