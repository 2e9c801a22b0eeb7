"""A running pod's networks become others: the real shim, ``towpath-ns`` and kernel, Debian's plugins."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from network_node import NetworkNode, local
from shim_harness import Shim, compile_shim, shim
from test_networks import BRIDGE, MACVLAN, addresses, api, fresh, node
from test_networks_failures import calls, commands, install

from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import PODS
from towpath.multinet.annotation import NETWORKS

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is shipped: hands wait as long as they do on a node."""
    return compile_shim(tmp_path_factory.mktemp("shim") / "towpath-cni")


def define(node: NetworkNode) -> None:
    node.define("flat", {**MACVLAN, "ipam": {"type": "static"}})
    node.define("bare", MACVLAN)
    node.define("local", {**BRIDGE, "ipam": local("10.7.0.0/24", routes=[{"dst": "10.8.0.0/16"}])})
    node.define("odd", {"cniVersion": "1.0.0", "type": "script"})


def ask(node: NetworkNode, pod: str, networks: Any) -> None:
    """Change the annotation, as ``kubectl annotate --overwrite`` does."""
    found = node.api.get(PODS, pod, "default")
    text = networks if isinstance(networks, str) else json.dumps(networks)
    annotations = {**found["metadata"]["annotations"], NETWORKS: text}
    node.api.put(PODS, {**found, "metadata": {**found["metadata"], "annotations": annotations}})


def told(node: NetworkNode, pod: str) -> list[tuple[str, str]]:
    return [(one["name"], one["interface"]) for one in node.status(pod)]


FLAT = {"name": "flat", "ips": ["192.168.9.1/24", "fd09::1/64"]}


async def test_networks_come_and_go_while_the_pod_runs(node: NetworkNode) -> None:
    define(node)
    node.pod("p")
    added = await node.add("p")
    assert node.status("p") == []
    async with node.towpath_ns():
        ask(node, "p", [FLAT, {"name": "local", "interface": "data0"}])
        assert await node.plugging.once()
        assert addresses(node, "p", "net1") == {"192.168.9.1/24", "fd09::1/64"}
        assert len(addresses(node, "p", "data0")) == 1
        assert told(node, "p") == [("towpath", "eth0"), ("default/flat", "net1"), ("default/local", "data0")]
        assert node.status("p")[0]["default"]
        before = node.inside("p").links["data0"]

        # Whatever moves in the list keeps its interface; a new one takes the place of what is gone.
        ask(node, "p", [{"name": "local", "interface": "data0"}, {"name": "bare"}, {"name": "local"}])
        assert await node.plugging.once()
        assert node.inside("p").links["data0"] == before
        assert addresses(node, "p", "net1") == set()
        assert told(node, "p")[1:] == [
            ("default/local", "data0"),
            ("default/bare", "net2"),
            ("default/local", "net3"),
        ]
        assert [reason for reason, _ in await node.events("p")] == [
            "AddedInterface",
            "AddedInterface",
            "RemovedInterface",
            "AddedInterface",
            "AddedInterface",
        ]
        await node.call("CHECK", "p", {"prevResult": added})

        ask(node, "p", "")
        assert await node.plugging.once()
        assert sorted(node.inside("p").links) == ["eth0", "lo"]
        assert told(node, "p") == [("towpath", "eth0")]
        assert node.journal.rows() == ()
    await node.delete("p")
    assert node.leftovers() == []


async def test_deletion_detaches_what_was_plugged(node: NetworkNode, api: FakeApiServer) -> None:
    define(node)
    install(node)
    node.pod("p", "local")
    await node.add("p")
    async with node.towpath_ns():
        ask(node, "p", "local,odd,local")
        assert await node.plugging.once()
    api.remove(PODS, "p", "default")
    await node.delete("p")
    assert commands(node) == ["ADD", "DEL"]
    (_, _, added), (_, _, deleted) = calls(node)
    assert deleted.pop("prevResult")
    assert added == deleted
    assert node.leftovers() == []


async def test_without_towpath_ns_it_is_refused_and_made_up_for(node: NetworkNode) -> None:
    define(node)
    node.pod("p")
    await node.add("p")
    ask(node, "p", [FLAT])
    for _ in range(2):
        assert not await node.plugging.once()
    assert [reason for reason, _ in await node.events("p")] == ["TP6017"]
    [finding] = node.plugging.findings()
    assert (finding.code, finding.object) == ("TP6017", "Pod/default/p")
    async with node.towpath_ns():
        assert await node.plugging.once()
        assert addresses(node, "p", "net1") == {"192.168.9.1/24", "fd09::1/64"}
        assert node.plugging.findings() == []
    await node.delete("p")


async def test_what_fails_is_undone_told_and_tried_again_and_takes_nothing_along(node: NetworkNode) -> None:
    define(node)
    install(node, ADD="echo no room >&2; exit 1")
    node.pod("p", [FLAT])
    await node.add("p")
    async with node.towpath_ns():
        ask(node, "p", [FLAT, {"name": "local"}, {"name": "odd"}])
        assert not await node.plugging.once()
        assert told(node, "p")[1:] == [("default/flat", "net1"), ("default/local", "net2")]
        assert commands(node) == ["ADD", "DEL"]
        [finding] = node.plugging.findings()
        assert finding.code == "TP6009"
        assert "no room" in finding.message
        assert not await node.plugging.once()  # it is not its time yet
        install(node)
        node.now += 20
        assert await node.plugging.once()
        assert commands(node) == ["ADD", "DEL", "ADD"]
        assert [ifname for _, ifname in told(node, "p")] == ["eth0", "net1", "net2", "net3"]

        install(node, DEL="exit 1")
        ask(node, "p", [FLAT])
        assert not await node.plugging.once()
        assert [row.key for row in node.journal.of("p")] == [("p", "net1"), ("p", "net3")]
        assert told(node, "p")[1:] == [("default/flat", "net1")]
        install(node)
        node.now += 20
        assert await node.plugging.once()
        assert [row.key for row in node.journal.of("p")] == [("p", "net1")]
    await node.delete("p")
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("networks", "code"),
    [
        ("local,,local", "TP6001"),
        ("unknown", "TP6002"),
        ([{"name": "local", "interface": "eth0"}], "TP6005"),
        ([{"name": "local", "interface": "sixteen-letters-"}], "TP6005"),
        ([{"name": "local", "mac": "01:00:00:00:00:01"}], "TP6006"),
        ([{"name": "local", "bandwidth": {"ingressRate": 1000}}], "TP6007"),
    ],
)
async def test_what_is_refused_leaves_the_pod_as_it_was(node: NetworkNode, networks: Any, code: str) -> None:
    define(node)
    node.pod("p", [FLAT])
    await node.add("p")
    seen = node.inside("p")
    async with node.towpath_ns():
        ask(node, "p", networks)
        assert not await node.plugging.once()
    assert code in [reason for reason, _ in await node.events("p")]
    assert [finding.code for finding in node.plugging.findings()] == [code]
    assert node.inside("p") == seen
    await node.delete("p")
    assert node.leftovers() == []


async def test_the_default_route_moves_and_comes_back(node: NetworkNode) -> None:
    define(node)
    node.pod("p")
    added = await node.add("p")

    def defaults() -> set[tuple[int, str]]:
        routes = node.inside("p").routes
        return {(r.dst.version, r.dev) for r in routes if r.dst.prefixlen == 0}

    before = defaults()
    async with node.towpath_ns():
        ask(node, "p", [{**FLAT, "default-route": ["192.168.9.254"]}])
        assert await node.plugging.once()
        assert defaults() == {(4, "net1")}
        ask(node, "p", "")
        assert await node.plugging.once()
        assert defaults() == before == {(4, "eth0"), (6, "eth0")}
        await node.call("CHECK", "p", {"prevResult": added})
    await node.delete("p")
    assert node.leftovers() == []


async def test_an_agent_that_dies_while_it_attaches_is_made_up_for(
    fresh: NetworkNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(fresh)
    install(fresh)
    fresh.pod("p")

    async def dies(*_: Any, **__: Any) -> None:
        raise ConnectionAbortedError("here the agent dies, and undoes nothing")

    with monkeypatch.context() as patched:
        async with fresh.agent():
            await fresh.add("p")
            patched.setattr(fresh.journal, "done", dies)
            patched.setattr(fresh.plugging._detacher, "one", dies)
            async with fresh.towpath_ns():
                ask(fresh, "p", "odd")
                assert not await fresh.plugging.once()
    async with fresh.agent():
        assert [row.done for row in fresh.journal.of("p")] == [False]
        async with fresh.towpath_ns():
            assert await fresh.plugging.once()
            assert commands(fresh) == ["ADD", "DEL", "ADD"]
            assert told(fresh, "p") == [("towpath", "eth0"), ("default/odd", "net1")]
        await fresh.delete("p")
        assert fresh.leftovers() == []


async def test_what_no_del_comes_for_goes_without_another_pods_call(
    fresh: NetworkNode, api: FakeApiServer
) -> None:
    define(fresh)
    install(fresh)
    fresh.pod("p", "odd")
    async with fresh.agent():
        await fresh.add("p")
    api.remove(PODS, "p", "default")
    fresh.attach.boot_id = "boot-2"
    async with fresh.agent():
        await fresh.networks.collect()
        async with fresh.towpath_ns():
            assert await fresh.plugging.once()
        assert commands(fresh) == ["ADD", "DEL"]
        assert fresh.journal.rows() == ()


async def test_without_a_shim_towpath_ns_says_so_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "towpath.agent.ns",
        f"--plugins={tmp_path}",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        line = (await process.stderr.readline()).decode()
        assert line.startswith("towpath-ns: ")
        assert "towpath-cni" in line
        process.terminate()
        assert await process.wait() == 0
