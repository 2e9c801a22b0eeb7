"""towpath-ipam on the lab's API server: nodes share ranges without a lock."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver_world import TOKEN, World, world
from test_blocks_race import DEFINITIONS

from towpath.agent.ipam_calls import IpamCalls
from towpath.agent.ipam_plugin import IpamPlugin
from towpath.api.core import Node, Pod, PodStatus
from towpath.api.meta import ObjectMeta
from towpath.cni.errors import CniError
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.cni.result import Result
from towpath.ipam.store import LeaseStore
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.model.net import Addr

KINDS = Path(__file__).parents[2] / "manifests" / "towpath-ipam.yaml"
GROUP = "/apis/ipam.towpath.dev/v1"
RANGE = {"range": "192.168.7.0/26", "gateway": "192.168.7.1", "exclude": ["192.168.7.2/32"]}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def kinds(api: World) -> None:
    for document in yaml.safe_load_all(KINDS.read_text()):
        await api.do("POST", DEFINITIONS, document, 201)


class Cluster:
    """Nodes by name, pods by name; what the agents know of both."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.pods: dict[str, Pod] = {}

    def nodes(self) -> Mapping[str, Node]:
        return {name: Node(metadata=ObjectMeta(name=name)) for name in self.names}

    def inhabited(self) -> Collection[str] | None:
        return self.names

    async def find(self, namespace: str, name: str) -> Pod | None:
        return self.pods.get(name)


class OneNode:
    """An agent's plugin, its disk and its clock."""

    def __init__(self, name: str, cluster: Cluster, client: Client, folder: Path) -> None:
        self.name, self.cluster, self._client, self._folder = name, cluster, client, folder
        self.now, self.boot, self.containers = 0.0, "b1", set[str]()
        self.start()

    def start(self) -> None:
        """As after a crash or a reboot."""
        self.store = LeaseStore(self._folder / f"{self.name}.db", boot_id=self.boot, clock=lambda: self.now)
        self.store.open()
        self.plugin = IpamPlugin(
            self._client,
            self.name,
            self.cluster,
            self.cluster,
            lambda: self.containers,
            (ip_network("10.42.0.0/16"),),
            self.store,
            60.0,
            90.0,
        )
        self.calls = IpamCalls(self.plugin, self.plugin, 0)
        self._running = asyncio.create_task(self.plugin.run())

    async def stop(self) -> None:
        """Once it has heard something of everything: a connection that is just being made is not closed."""

        async def heard() -> bool:
            followed = self.plugin._follow.values()
            return all(one.listed.is_set() or one.problem for one in followed)

        if self.plugin._wanted.is_set():
            await until(heard)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.store.close()

    def request(self, command: str, pod: str, ipam: Mapping[str, Any], **more: Any) -> Request:
        section = {"type": "towpath-ipam", **ipam}
        config = {"cniVersion": "1.1.0", "name": "storage", "type": "macvlan", "ipam": section, **more}
        return Request(
            command=command,
            config=parse_net_conf(json.dumps(config).encode()),
            container_id=f"{self.name}-{pod}",
            ifname="net1",
            args={"K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": pod},
            request_id=pod,
        )

    async def add(self, pod: str, ipam: Mapping[str, Any] = RANGE, **more: Any) -> Result:
        """Raises CniError."""
        self.cluster.pods[pod] = Pod(
            metadata=ObjectMeta(name=pod, namespace="default", uid=pod), status=PodStatus(phase="Running")
        )
        self.containers.add(f"{self.name}-{pod}")
        return await self.calls.add(self.request("ADD", pod, ipam, **more))

    async def address(self, pod: str, ipam: Mapping[str, Any] = RANGE, **more: Any) -> Addr:
        return (await self.add(pod, ipam, **more)).ips[0].address.ip


@pytest.fixture
async def cluster(api: World, tmp_path: Path) -> AsyncIterator[Callable[[str], OneNode]]:
    async with Client(ClientConfig(server=api.url, source="test", token=TOKEN)) as client:
        found, nodes = Cluster(), list[OneNode]()

        def join(name: str) -> OneNode:
            found.names.append(name)
            nodes.append(OneNode(name, found, client, tmp_path))
            return nodes[-1]

        yield join
        for node in nodes:
            await node.stop()


async def until(question: Callable[[], Any]) -> None:
    async with asyncio.timeout(240):
        while not await question():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def refused(node: OneNode, pod: str, ipam: Mapping[str, Any], **more: Any) -> str:
    with pytest.raises(CniError) as error:
        await node.add(pod, ipam, **more)
    return f"{error.value.msg} {error.value.details}"


async def test_nodes_share_a_range_and_no_address_is_given_twice(
    api: World, cluster: Callable[[str], OneNode]
) -> None:
    await kinds(api)
    nodes = [cluster(f"n{n}") for n in range(8)]
    first = await nodes[0].add("first")
    assert str(first.ips[0].address).endswith("/26") and str(first.ips[0].gateway) == "192.168.7.1"
    pods = [(node, f"{node.name}-{number}") for node in nodes for number in range(4)]
    leased = await asyncio.gather(*(node.address(pod) for node, pod in pods))
    found = {first.ips[0].address.ip, *leased}
    assert len(found) == len(pods) + 1
    assert all(address in ip_network("192.168.7.0/26") for address in found)
    assert not {ip_address(f"192.168.7.{n}") for n in (0, 1, 2, 63)} & found
    for node, pod in pods:
        await node.calls.check(node.request("CHECK", pod, RANGE))
        await node.calls.delete(node.request("DEL", pod, RANGE))
        await node.calls.delete(node.request("DEL", pod, RANGE))  # of anything, any number of times
        with pytest.raises(CniError):
            await node.calls.check(node.request("CHECK", pod, RANGE))
    assert not any(node.store.leased() for node in nodes[1:])


async def test_an_agent_that_starts_again_knows_what_it_gave_out(
    api: World, cluster: Callable[[str], OneNode]
) -> None:
    await kinds(api)
    node = cluster("n1")
    two = {"ipRanges": [RANGE, {"range": "fd00:7::/64"}], "routes": [{"dst": "10.9.0.0/16"}]}
    before = await node.add("a", two)
    assert [str(ip.address.network) for ip in before.ips] == ["192.168.7.0/26", "fd00:7::/64"]
    assert [str(route.dst) for route in before.routes] == ["10.9.0.0/16"]
    await node.stop()
    node.start()
    assert await node.add("a", two) == before  # the shim asks the next agent the same
    again = node.request("ADD", "a", two)
    again.request_id = "another"
    with pytest.raises(CniError, match="it has addresses"):
        await node.calls.add(again)
    assert await node.address("b", RANGE) != before.ips[0].address.ip
    wanted = ip_address("192.168.7.44")
    assert await node.address("c", RANGE, runtimeConfig={"ips": ["192.168.7.44/26"]}) == wanted
    assert "192.168.7.44" in await refused(node, "d", RANGE, runtimeConfig={"ips": ["192.168.7.44"]})
    assert "192.168.8.1" in await refused(node, "d", RANGE, runtimeConfig={"ips": ["192.168.8.1"]})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "ipam.range is missing"),
    ({"range": "192.168.7.0/33"}, "ipam.range"),
    ({"range": "192.168.7.2-192.168.7.9"}, "range_start"),
    ({"range": "192.168.7.0/31"}, "too small"),
    ({"range": "192.168.7.0/24", "range_start": "192.168.8.1"}, "ipam.range_start"),
    ({"range": "192.168.7.0/24", "gateway": "fd00::1"}, "ipam.gateway"),
    ({"range": "192.168.7.0/24", "exclude": ["192.168.9.0/28"]}, "ipam.exclude"),
    ({"range": "192.168.7.0/24", "block_size": 20}, "ipam.block_size"),
    ({"range": "192.168.7.0/24", "ipRanges": [{"range": "192.168.7.128/25"}]}, "overlap"),
    ({"range": "10.42.7.0/24"}, "overlaps 10.42.0.0/16"),
    ({"range": "192.168.0.0/16"}, "overlaps NetworkRange 192-168-7-0-26"),
    ({"range": "192.168.7.0/26", "block_size": 28}, "block_size"),
]


async def test_ranges_that_cannot_be_are_refused(api: World, cluster: Callable[[str], OneNode]) -> None:
    await kinds(api)
    node = cluster("n1")
    kept = await node.address("running")
    for ipam, words in REFUSED:
        said = await refused(node, "new", ipam)
        assert words in said and ("TP4051" in said or "TP4052" in said)
        assert list(node.store.leased()) == [kept]


async def test_of_two_ranges_that_overlap_one_at_most_is_used_whoever_is_first(
    api: World, cluster: Callable[[str], OneNode]
) -> None:
    await kinds(api)
    nodes = [cluster(f"n{n}") for n in range(6)]
    ranges = [{"range": text} for text in ("192.168.0.0/22", "192.168.1.0/24", "192.168.0.0/23")]
    tried = [node.add(f"p{n}", ranges[n % 3]) for n, node in enumerate(nodes)]
    results = await asyncio.gather(*tried, return_exceptions=True)
    used = {n % 3 for n, result in enumerate(results) if isinstance(result, Result)}
    assert len(used) <= 1
    assert all("TP4051" in r.details for r in results if isinstance(r, CniError))


async def test_without_the_kinds_it_is_said_how_to_bring_them(
    api: World, cluster: Callable[[str], OneNode]
) -> None:
    node = cluster("n1")
    assert "TP4050" in await refused(node, "a", RANGE)
    with pytest.raises(CniError, match="no address can be given out"):
        await node.calls.status(node.request("STATUS", "a", RANGE))
    assert [finding.code for finding in node.plugin.findings()] == ["TP4050"]


async def test_a_lease_is_freed_on_the_node_s_proof_and_the_api_s(
    api: World, cluster: Callable[[str], OneNode]
) -> None:
    await kinds(api)
    node = cluster("n1")
    for pod in ("a", "b", "c"):
        await node.add(pod)

    async def left() -> set[str]:
        await node.plugin.collect()
        return {key[0].removeprefix("n1-") for key in node.store.leased().values()}

    del node.cluster.pods["a"]  # its container is there still
    node.containers.discard("n1-b")  # and this one's pod
    assert await left() == {"a", "b", "c"}
    node.now += 61
    assert await left() == {"a", "b", "c"}
    del node.cluster.pods["b"]
    assert await left() == {"a", "b", "c"}
    node.now += 59
    assert await left() == {"a", "b", "c"}
    node.now += 2
    assert await left() == {"a", "c"}
    valid = [{"containerID": "n1-x", "ifname": "net1"}]
    await node.calls.gc(node.request("GC", "", RANGE, **{"cni.dev/valid-attachments": valid}))
    assert await left() == {"c"}
    await node.stop()
    node.boot = "b2"
    node.start()
    node.cluster.pods.clear()
    await left()
    node.now += 61
    assert await left() == set()
    assert await node.address("d")


async def test_where_nobody_asked_for_it_no_address_is_given_and_every_pod_can_go(
    cluster: Callable[[str], OneNode],
) -> None:
    node = cluster("n1")
    calls = IpamCalls(node.plugin, None, 0)
    with pytest.raises(CniError, match="not asked for"):
        await calls.add(node.request("ADD", "a", RANGE))
    await calls.delete(node.request("DEL", "a", RANGE))
