"""Pods with extra networks: third-party plugins and Towpath's own, attached, checked, detached, refused."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attach_node import AttachNode, run
from network_node import NetworkNode, executable, local
from shim_harness import Shim, shim

from towpath.agent.network_builtin import host_end
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.kube.fake import FakeApiServer
from towpath.model.op import DelLink
from towpath.multinet.choose import NetworkSettings
from towpath.multinet.derive import Call

pytestmark = pytest.mark.kernel

MACVLAN = {"cniVersion": "1.0.0", "type": "macvlan", "master": "und0"}
BRIDGE = {"cniVersion": "1.0.0", "type": "bridge", "bridge": "br7"}


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


@pytest.fixture
async def fresh(shim: Shim, api: FakeApiServer, tmp_path: Path) -> AsyncIterator[NetworkNode]:
    run("ip link add und0 type veth peer name und1")
    run("ip link set und0 up")
    run("ip link set und1 up")
    folder = tmp_path / "state"
    folder.mkdir()
    node = NetworkNode(shim, api, AttachNode(folder))
    yield node
    node.close()
    with closing(LinuxKernel(nft=False)) as kernel:
        kernel.apply([DelLink("und0"), DelLink("br7")])


@pytest.fixture
async def node(fresh: NetworkNode) -> AsyncIterator[NetworkNode]:
    async with fresh.agent():
        yield fresh


def addresses(node: NetworkNode, pod: str, ifname: str) -> set[str]:
    seen = {str(a.interface) for a in node.inside(pod).addresses if a.dev == ifname}
    return {a for a in seen if not a.startswith("fe80:")}


async def test_two_networks_by_debians_plugins(node: NetworkNode) -> None:
    node.define("left", {**BRIDGE, "isGateway": True, "ipam": local("10.7.0.0/24")})
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.data0.arp_filter": "1"}}
    plugins = [{"type": "ptp", "ipam": local("10.8.0.0/24")}, tuning]
    node.define("right", {"cniVersion": "0.4.0", "name": "chain", "plugins": plugins})
    node.pod("p", "left,right@data0")
    result = await node.add("p")
    assert [i["name"] for i in result["interfaces"]] == [node.attach.host("p"), "eth0"]
    assert addresses(node, "p", "net1") == {"10.7.0.2/24"}
    assert addresses(node, "p", "data0") == {"10.8.0.2/24"}
    default, left, right = node.status("p")
    assert (default["name"], default["interface"], default["default"]) == ("towpath", "eth0", True)
    assert (left["name"], left["interface"], left["ips"]) == ("default/left", "net1", ["10.7.0.2"])
    assert left["mac"] == node.inside("p").links["net1"].mac
    assert (right["name"], right["interface"], right["default"]) == ("default/right", "data0", False)
    assert await node.events("p") == [
        ("AddedInterface", "Add net1 [10.7.0.2/24] from default/left"),
        ("AddedInterface", "Add data0 [10.8.0.2/24] from default/right"),
    ]
    await node.call("CHECK", "p", {"prevResult": result})
    await node.delete("p")
    assert node.leftovers() == []
    await node.delete("p")


async def test_towpaths_own_kinds_do_without_the_plugins(node: NetworkNode) -> None:
    static = {"type": "static", "addresses": [{"address": "10.9.0.1/24", "gateway": "10.9.0.254"}]}
    static["routes"] = [{"dst": "10.99.0.0/16"}]
    node.define("mv", {**MACVLAN, "ipam": static})
    node.define("br", {**BRIDGE, "mtu": 1400})
    asked = {"name": "mv", "ips": ["10.9.0.77"], "mac": "02:00:00:00:07:07"}
    node.pod("p", [asked, {"name": "br"}])
    result = await node.call("ADD", "p", CNI_PATH=str(node.plugins))  # none is installed there
    seen = node.inside("p")
    assert addresses(node, "p", "net1") == {"10.9.0.77/24"}
    assert (seen.links["net1"].mac, seen.links["net2"].mtu) == ("02:00:00:00:07:07", 1400)
    assert ("10.99.0.0/16", "net1", "10.9.0.254") in {(str(r.dst), r.dev, str(r.via)) for r in seen.routes}
    _, first, second = node.status("p")
    assert (first["ips"], first["mac"], first["mtu"]) == (["10.9.0.77"], "02:00:00:00:07:07", 1500)
    assert (second["interface"], second["mtu"], "ips" in second) == ("net2", 1400, False)
    node.pod("q", [{"name": "mv", "ips": ["10.9.0.78"]}])
    await node.call("ADD", "q", CNI_PATH=str(node.plugins))
    await node.call("CHECK", "p", {"prevResult": result}, CNI_PATH=str(node.plugins))
    await node.call("DEL", "p", CNI_PATH=str(node.plugins))
    await node.call("DEL", "q", CNI_PATH=str(node.plugins), CNI_NETNS="")
    assert [left for left in node.leftovers() if not left.startswith("q: net1")] == []


async def test_check_names_what_is_not_as_it_was(node: NetworkNode) -> None:
    static = {"type": "static", "addresses": [{"address": "10.9.0.1/24"}]}
    node.define("mv", {**MACVLAN, "ipam": static})
    node.pod("p", "mv")
    result = await node.add("p")
    inside = node.attach.netns("p")
    run_in(inside, lambda: run("ip address del 10.9.0.1/24 dev net1"))
    code, text = await node.refused("CHECK", "p", {"prevResult": result})
    assert code == 100
    assert "address 10.9.0.1/24 is not on net1" in text
    run_in(inside, lambda: run("ip link del net1"))
    assert "interface net1 is gone" in (await node.refused("CHECK", "p", {"prevResult": result}))[1]
    await node.delete("p")
    assert node.leftovers() == []


async def test_the_default_route_moves_in_both_families_and_the_pods_stay_reachable(
    node: NetworkNode,
) -> None:
    both = [{"address": "10.9.0.5/24"}, {"address": "fd09::5/64"}]
    node.define("mv", {**MACVLAN, "ipam": {"type": "static", "addresses": both}})
    node.pod("p", [{"name": "mv", "default-route": ["10.9.0.1", "fd09::1"]}])
    result = await node.add("p")
    seen = node.inside("p")
    found = {(str(r.dst), r.dev, str(r.via)) for r in seen.routes}
    assert {r for r in found if r[0] in ("0.0.0.0/0", "::/0")} == {
        ("0.0.0.0/0", "net1", "10.9.0.1"),
        ("::/0", "net1", "fd09::1"),
    }
    assert ("10.42.0.0/16", "eth0", "169.254.1.1") in found
    assert any(dst == "fd00:10:42::/56" and dev == "eth0" for dst, dev, _ in found)
    assert node.status("p")[1]["gateway"] == ["10.9.0.1", "fd09::1"]
    await node.call("CHECK", "p", {"prevResult": result})
    await node.delete("p")
    node.pod("q", [{"name": "mv", "default-route": ["10.77.0.1"]}])
    _, text = await node.refused("ADD", "q")
    assert "TP6011" in text
    assert "10.77.0.1" in text
    assert node.leftovers() == []


async def test_the_default_network_can_be_another(node: NetworkNode) -> None:
    node.define("main", {"cniVersion": "1.0.0", "type": "ptp", "ipam": local("10.6.0.0/24")}, "kube-system")
    node.pod("p", "", override="main")
    result = await node.add("p")
    assert result["ips"][0]["address"] == "10.6.0.2/24"
    assert [(one["name"], one["default"]) for one in node.status("p")] == [("kube-system/main", True)]
    assert "DEL comes first" in (await node.refused("ADD", "p"))[1]
    await node.call("CHECK", "p", {"prevResult": result})
    await node.delete("p")
    assert node.leftovers() == []


async def test_without_extra_networks_nothing_is_written(node: NetworkNode) -> None:
    node.pod("p")
    await node.add("p")
    assert node.status("p") == []
    assert node.journal.rows() == ()
    await node.delete("p")


@pytest.mark.parametrize(
    ("networks", "code", "words"),
    [
        ("absent", "TP6002", "default/absent"),
        ("good,,good", "TP6001", "entry 2, character 6"),
        ("bad", "TP6004", "not JSON"),
        ("evil", "TP6008", "'/etc/cron.d'"),
        ("good@net2,good", "TP6005", "net2"),
        ("good@sixteen-letters-", "TP6005", "longer than 15"),
        ([{"name": "good", "mac": "01:00:00:00:00:00"}], "TP6006", "multicast"),
        ([{"name": "good", "bandwidth": {"ingressRate": 1}}], "TP6007", "bandwidth"),
        ([{"name": "fixed", "ips": ["10.1.1.1"]}], "TP6009", "outside of the network's own (10.9.0.0/24)"),
        ("good,lost", "TP6009", "not installed"),
        ("good,nomaster", "TP6009", "master nothing0 does not exist"),
    ],
)
async def test_what_is_refused_leaves_nothing(
    node: NetworkNode, networks: Any, code: str, words: str
) -> None:
    node.define("good", {**BRIDGE, "ipam": local("10.7.0.0/24")})
    node.define("bad", "{")
    node.define("evil", {**BRIDGE, "ipam": {"type": "host-local", "dataDir": "/etc/cron.d"}})
    static = {"type": "static", "addresses": [{"address": "10.9.0.1/24"}]}
    node.define("fixed", {**MACVLAN, "ipam": static})
    node.define("lost", {"cniVersion": "1.0.0", "type": "sriov"})
    node.define("nomaster", {**MACVLAN, "master": "nothing0"})
    node.pod("p", networks)
    _, text = await node.refused("ADD", "p")
    assert code in text
    assert words in text
    assert node.leftovers() == []
    warned = [message for reason, message in await node.events("p") if reason == code]
    assert len(warned) == 1
    assert words in warned[0]
    await node.delete("p")


async def test_isolation_is_enforced_at_add(fresh: NetworkNode) -> None:
    fresh.settings = NetworkSettings(isolation=True, global_namespaces=("shared",))
    fresh.define("a", MACVLAN, "other")
    fresh.define("b", MACVLAN, "shared")
    async with fresh.agent():
        fresh.pod("p", "other/a")
        assert "TP6003" in (await fresh.refused("ADD", "p"))[1]
        [(reason, _)] = await fresh.events("p")
        assert reason == "TP6003"
        fresh.pod("q", "shared/b")
        await fresh.add("q")
        await fresh.delete("q")
        assert fresh.leftovers() == []


async def test_networks_that_all_pods_get_are_asked_for_by_status(fresh: NetworkNode) -> None:
    fresh.settings = NetworkSettings(defaults=("wide",))
    async with fresh.agent():
        code, text = await fresh.refused("STATUS", "p")
        assert code == 50
        assert "TP6013" in text
        fresh.define("wide", {"cniVersion": "1.0.0", "type": "sriov"}, "kube-system")
        assert "not installed" in (await fresh.refused("STATUS", "p"))[1]
    fresh.define("wide", {**MACVLAN, "ipam": local("10.7.0.0/24")}, "kube-system")
    async with fresh.agent():
        await fresh.call("STATUS", "p")
        fresh.pod("p")
        await fresh.add("p")
        assert addresses(fresh, "p", "net1") == {"10.7.0.2/24"}
        await fresh.delete("p")
        assert fresh.leftovers() == []


async def test_an_empty_definition_is_the_nodes_configuration_of_its_name(node: NetworkNode) -> None:
    folder = node.attach.folder / "net.d"
    folder.mkdir()
    plugins = [{"type": "macvlan", "master": "und0"}]
    document = {"cniVersion": "1.0.0", "name": "disk", "plugins": plugins}
    (folder / "10-x.conflist").write_text(json.dumps(document))
    node.define("disk", None)
    node.pod("p", "disk")
    await node.add("p")
    assert "net1" in node.inside("p").links
    await node.delete("p")
    assert node.leftovers() == []


def test_host_ends_are_valid_names() -> None:
    one = Call(container_id="c" * 64, netns="", ifname="net1", network="n", version="1.0.0", plugins=())
    assert len(host_end(one)) < 16
