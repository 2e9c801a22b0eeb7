"""An agent's source of addresses in block mode, on the lab's API server: what is had and given back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from apiserver_world import TOKEN, World, world
from test_blocks_race import CALICO, api

from towpath.agent.attach_errors import refusal
from towpath.agent.block_api import BlockApi
from towpath.agent.block_source import Blocks
from towpath.api.core import Namespace, Node, NodeSpec, Pod
from towpath.api.meta import ObjectMeta
from towpath.api.report import STATUS, AgentReport
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.parse import parse_net_conf
from towpath.cni.request import Request
from towpath.ipam.block_plan import handle_of
from towpath.ipam.block_writes import Write
from towpath.ipam.blocks import read_block
from towpath.ipam.errors import AddressError, AddressUnavailable, BadBlock, BadWish, BlocksExhausted
from towpath.ipam.pools import Pool
from towpath.ipam.store import LeaseStore
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import Forbidden
from towpath.model.attachment import Attachment
from towpath.model.net import Addr, Net

__all__ = ["api"]
KEY = "cni.projectcalico.org/"
MERGE = "application/merge-patch+json"
HOME = ip_network("10.42.1.0/24")
BORROWED = {
    "cidr": "10.42.100.0/28",
    "affinity": "host:n2",
    "allocations": [0] * 16,
    "unallocated": [],
    "attributes": [{"handle_id": handle_of("n2"), "secondary": {"node": "n2"}}],
    "strictAffinity": False,
    "deleted": False,
}


class Around:
    """One node of the cluster, and its namespaces."""

    def __init__(self) -> None:
        meta = ObjectMeta(name="n1", labels={"zone": "a"})
        self.own: Node | None = Node(metadata=meta, spec=NodeSpec(pod_cidrs=["10.42.1.0/24"]))
        self.space = Namespace(metadata=ObjectMeta(name="default", labels={"team": "x"}))
        self.kept: tuple[Net, ...] = ()
        self.others: dict[str, Node] = {}

    def nodes(self) -> Mapping[str, Node]:
        assert self.own is not None
        return {"n1": self.own, **self.others}

    def namespace(self, name: str) -> Namespace | None:
        return self.space

    def reserved(self) -> tuple[Net, ...]:
        return self.kept

    def inhabited(self) -> Collection[str] | None:
        return ("n1",)


class Refusing(BlockApi):
    """An API server that takes no write."""

    def __init__(self, api: BlockApi) -> None:
        self.__dict__ |= api.__dict__

    async def carry_out(self, write: Write) -> bool:
        raise Forbidden(write.verb, write.name, "may not")


class Agent:
    """What of one has to do with addresses."""

    def __init__(self, blocks: Blocks, store: LeaseStore, around: Around) -> None:
        self.blocks, self.store, self.around, self.number = blocks, store, around, 0

    async def pod(self, **annotations: str) -> tuple[Addr, ...]:
        """The addresses of a new one, leased. Raises AddressError."""
        self.number += 1
        number = self.number
        notes = {KEY + key: text for key, text in annotations.items()}
        meta = ObjectMeta(name=f"p{number}", namespace="default", annotations=notes)
        request = Request.__new__(Request)
        request.pod = Pod(metadata=meta)
        choices = await self.blocks.choose(request, (), lambda _: False)
        att = Attachment(
            container_id=f"c{number}",
            ifname="eth0",
            network="n",
            netns="",
            host_ifname=f"cali{number}",
            addresses=tuple(c.address for c in choices),
            mac="02:00:00:00:00:01",
            mtu=1450,
            boot_id="b",
        )
        await self.store.add(att, choices)
        return att.addresses


@pytest.fixture
async def agent(api: World, tmp_path: Path) -> AsyncIterator[Agent]:
    """Follows pools ``main`` (both families), ``team`` (of a namespace) and ``other`` (of another zone)."""
    for name, spec in {
        "main": {"cidr": "10.42.0.0/17", "blockSize": 28},
        "six": {"cidr": "fd00:10:42::/56", "blockSize": 122},
        "team": {"cidr": "10.42.128.0/24", "blockSize": 28, "namespaceSelector": "team == 'y'"},
        "other": {"cidr": "10.42.129.0/24", "blockSize": 28, "nodeSelector": "zone == 'b'"},
    }.items():
        await put_pool(api, name, **spec)
    store = LeaseStore(tmp_path / "leases.db", boot_id="b", clock=lambda: 0.0, hold=86400.0)
    store.open()
    around = Around()
    networks = (ip_network("10.42.0.0/16"), ip_network("fd00:10:42::/56"))
    async with Client(ClientConfig(server=api.url, source="test", token=TOKEN)) as client:
        blocks = Blocks(client, "n1", networks, around, lambda: None, 90)
        blocks.store = store
        running = asyncio.create_task(blocks.run())
        await until(lambda: not blocks.problem())
        yield Agent(blocks, store, around)
        assert not running.done(), running.exception()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    store.close()


async def put_pool(api: World, name: str, **spec: Any) -> None:
    meta = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": name}}
    await api.do("POST", f"{CALICO}/ippools", {**meta, "spec": spec}, 201)


async def until(true: Callable[[], bool]) -> None:
    """Waits as long as a busy machine takes."""

    async def asked() -> bool:
        return true()

    await until_found(asked)


async def until_found(question: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(240):
        while not await question():  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def marked(api: World, net: str) -> list[Addr]:
    found: list[Addr] = []
    for obj in (await api.do("GET", f"{CALICO}/ipamblocks"))["items"]:
        block = read_block(obj)
        if block.cidr.version == ip_network(net).version and block.cidr.overlaps(ip_network(net)):
            found += block.of(handle_of("n1"))
    return found


async def test_a_pod_gets_what_it_may_and_what_it_asks_for(api: World, agent: Agent) -> None:
    four, six = await agent.pod()
    assert four in ip_network("10.42.1.0/24") and six in ip_network("fd00:10:42::/56")
    assert four != ip_address("10.42.1.0")  # its node's own, in the overlay
    assert four in await marked(api, "10.42.0.0/17") and len(await marked(api, "10.42.0.0/17")) == 15
    assert (await agent.pod(ipv4pools='["team"]'))[0] in ip_network("10.42.128.0/24")
    named = await agent.pod(ipAddrs='["10.42.7.7"]')
    assert named[0] == ip_address("10.42.7.7") and named[1] in ip_network("fd00:10:42::/56")
    assert await agent.pod(ipAddrsNoIpam='["192.0.2.9"]') == (ip_address("192.0.2.9"),)
    agent.around.space = Namespace(
        metadata=ObjectMeta(name="default", annotations={KEY + "ipv4pools": '["10.42.128.0/24"]'})
    )
    assert (await agent.pod())[0] in ip_network("10.42.128.0/24")


@pytest.mark.parametrize(
    ("annotations", "error"),
    [
        ({"ipv4pools": '["other"]'}, BadBlock),
        ({"ipv4pools": '["nowhere"]'}, BadBlock),
        ({"ipv4pools": '["six"]'}, BadBlock),
        ({"ipAddrs": '["10.99.0.1"]'}, AddressUnavailable),
        ({"ipAddrs": '["10.42.9.0"]'}, AddressUnavailable),
        ({"ipAddrsNoIpam": '["10.42.9.9"]'}, AddressUnavailable),
        ({"ipAddrs": '["10.42.9.9", "10.42.9.10"]'}, BadWish),
        ({"ipAddrs": "10.42.9.9"}, BadWish),
        ({"ipv6pools": '["main"]'}, BadBlock),
    ],
)
async def test_what_cannot_be_is_refused(
    agent: Agent, annotations: dict[str, str], error: type[AddressError]
) -> None:
    with pytest.raises(error):
        await agent.pod(**annotations)


async def test_what_is_refused_has_a_code_and_hurts_no_pod_that_runs(agent: Agent) -> None:
    before = await agent.pod()
    for annotations, code in (
        ({"ipv4pools": '["six"]'}, "TP4035"),
        ({"ipAddrs": "nonsense"}, "TP4035"),
        ({"ipv4pools": '["none-left"]'}, "TP4034"),
    ):
        if code == "TP4034":
            small = Pool(name="none-left", cidr=ip_network("10.42.130.0/32"), block=32)
            agent.blocks.stock.pools = (*agent.blocks.stock.pools, small)  # its one address is the overlay's
        with pytest.raises(AddressError) as error:
            await agent.pod(**annotations)
        assert code in refusal(error.value).details
    agent.blocks.stock.api = Refusing(agent.blocks.api)
    with pytest.raises(CniError) as refused:
        await agent.pod(ipv4pools='["team"]')
    assert "TP4033" in refused.value.details and "may not" in refused.value.details
    assert set(before) == set(agent.store.leased())


async def test_without_the_kinds_no_pod_gets_an_address_and_it_is_said_why(tmp_path: Path) -> None:
    around = Around()
    async with (
        world(tmp_path) as bare,
        Client(ClientConfig(server=bare.url, source="test", token=TOKEN)) as client,
    ):
        blocks = Blocks(client, "n1", (ip_network("10.42.0.0/16"),), around, lambda: None, 90)
        running = asyncio.create_task(blocks.run())
        await until(lambda: blocks.is_listed and "TP4030" in blocks.problem())
        request = Request.__new__(Request)
        request.config = parse_net_conf(b'{"cniVersion": "1.0.0", "name": "n", "type": "towpath-cni"}')
        with pytest.raises(CniError) as error:
            blocks.check(request)
        assert error.value.code == ErrorCode.TRY_LATER
        assert "kubectl apply -f manifests/calico-ipam.yaml" in error.value.details
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_address_is_nobody_s_twice(agent: Agent) -> None:
    with pytest.raises(AddressUnavailable):
        await asyncio.gather(agent.pod(ipAddrs='["10.42.7.7"]'), agent.pod(ipAddrs='["10.42.7.7"]'))
    found = await asyncio.gather(*(agent.pod() for _ in range(40)))
    assert len({a for addresses in found for a in addresses}) == 80


async def test_a_closed_pool_is_given_back_when_its_pods_are_gone(api: World, agent: Agent) -> None:
    await agent.pod(ipv4pools='["team"]')
    assert len(await marked(api, "10.42.128.0/24")) >= 15
    await api.do(
        "PATCH", f"{CALICO}/ippools/team", json.loads('{"spec": {"disabled": true}}'), Content_Type=MERGE
    )
    await until(lambda: any(p.closed for p in agent.blocks.stock.pools))
    with pytest.raises((BadBlock, BlocksExhausted)):
        await agent.pod(ipv4pools='["team"]')

    async def one_is_left() -> bool:
        return len(await marked(api, "10.42.128.0/24")) == 1

    async def nothing_is_left() -> bool:
        return "10-42-128" not in str((await api.do("GET", f"{CALICO}/ipamblocks"))["items"])

    await until_found(one_is_left)
    await agent.store.release("c1", "eth0")
    agent.blocks.poke()
    await until_found(nothing_is_left)


async def test_what_operators_are_told_of_pools_and_blocks(api: World, agent: Agent) -> None:
    await agent.pod()
    await agent.pod(ipAddrs='["10.42.7.7"]')
    agent.around.kept = (ip_network("10.42.0.0/28"),)
    figures = agent.blocks.figures
    assert figures.leased() == {"main": 2, "six": 2}
    pools = {one.pool: one for one in figures.pools()}
    main = pools["main"]
    assert (main.range, main.size, main.used, main.foreign, main.reserved) == (
        "10.42.0.0/17",
        (1 << 15) - (1 << 7),  # a network address for each podCIDR that there could be
        2,
        0,
        16,
    )
    assert main.uid and pools["team"].used == 0
    blocks = {ip_network(one.range): one for one in figures.blocks(())}
    (first,) = (one for net, one in blocks.items() if net.version == 4 and one.used and net[0] in HOME)
    assert (first.size, first.used) == (15, 1)
    assert sum(one.used for one in blocks.values()) == 4

    # What another node's pods have it says itself; while it does not, all that it has marked counts.
    other = {"metadata": {"name": "10-42-100-0-28"}, "spec": dict(BORROWED)}
    meta = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock"}
    await api.do("POST", f"{CALICO}/ipamblocks", {**meta, **other}, 201)
    await until(lambda: ip_network("10.42.100.0/28") in agent.blocks.api.mirror.blocks)

    def counted() -> tuple[int, int]:
        one = next(one for one in figures.pools() if one.pool == "main")
        return one.used, one.foreign

    assert counted() == (2, 16)
    report = AgentReport(leased={"main": 5})
    notes = {STATUS: msgspec.json.encode(report).decode()}
    agent.around.others["n2"] = Node(metadata=ObjectMeta(name="n2", annotations=notes))
    assert counted() == (7, 0)
