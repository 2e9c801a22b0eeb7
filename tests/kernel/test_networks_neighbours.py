"""An address that somebody on a shared segment has already is not given to a pod."""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import socket
from collections.abc import AsyncIterator, Sequence
from errno import ENOBUFS
from functools import partial
from typing import Any

import pytest
from attach_node import run
from network_node import NetworkNode, executable, local
from shim_harness import Shim, shim
from test_networks import BRIDGE, MACVLAN, addresses, api, fresh

from towpath.agent import network_neighbours
from towpath.kernel.netlink import Failure, Message, NetlinkSocket
from towpath.kernel.netns import run_in
from towpath.kernel.rtnl import RTM_NEWNEIGH

pytestmark = pytest.mark.kernel

STATIC = {"type": "static", "addresses": [{"address": "10.9.0.2/24"}]}
STATIC6 = {"type": "static", "addresses": [{"address": "fd09::2/64"}]}


@pytest.fixture
async def node(fresh: NetworkNode) -> AsyncIterator[NetworkNode]:
    fresh.ask_ms = 400
    async with fresh.agent():
        yield fresh


@pytest.mark.parametrize("ipam", [STATIC, STATIC6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [MACVLAN, BRIDGE], ids=["macvlan", "bridge"])
async def test_a_neighbours_address_is_refused_until_it_is_free(
    node: NetworkNode, kind: dict[str, Any], ipam: dict[str, Any]
) -> None:
    node.define("net", {**kind, "ipam": ipam})
    (address,) = (one["address"] for one in ipam["addresses"])
    for pod in ("p", "q"):
        node.pod(pod, "net")
    await node.add("p")
    mac = node.inside("p").links["net1"].mac
    _, text = await node.refused("ADD", "q")
    assert f"{address.partition('/')[0]} is in use on its segment, by {mac}; TP4021" in text
    await node.delete("q")
    await node.delete("p")
    await node.add("q")
    assert addresses(node, "q", "net1") == {address}
    await node.delete("q")
    assert node.leftovers() == []


async def test_a_full_table_of_neighbours_is_waited_for(
    node: NetworkNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played: the table is the whole machine's, and so it would be full for everybody."""
    refused: list[Failure] = []

    class Full(NetlinkSocket):
        def request(self, messages: Sequence[Message]) -> list[Failure]:
            if messages[0].kind != RTM_NEWNEIGH or len(refused) == 3:
                return super().request(messages)
            refused.append(Failure(0, ENOBUFS, ""))
            return refused[-1:]

    monkeypatch.setattr(network_neighbours, "NetlinkSocket", Full)
    node.define("net", {**MACVLAN, "ipam": STATIC})
    node.pod("p", "net")
    await node.add("p")
    assert addresses(node, "p", "net1") == {"10.9.0.2/24"} and len(refused) == 3
    await node.delete("p")
    assert node.leftovers() == []


async def test_host_local_is_asked_for_the_next_one(node: NetworkNode) -> None:
    """The runtime's DEL gives the address back, and its next ADD gets another."""
    node.define("fixed", {**MACVLAN, "ipam": STATIC})
    node.define("pool", {**MACVLAN, "ipam": local("10.9.0.0/24")})
    node.pod("p", "fixed")
    node.pod("q", "pool")
    await node.add("p")
    _, text = await node.refused("ADD", "q")
    assert "10.9.0.2 is in use on its segment" in text
    await node.delete("q")
    await node.add("q")
    assert addresses(node, "q", "net1") == {"10.9.0.3/24"}
    for pod in ("p", "q"):
        await node.delete(pod)
    assert node.leftovers() == []


async def test_neighbours_hear_that_an_address_is_another_pods_by_now(node: NetworkNode) -> None:
    def known(address: str) -> str:
        """The link address that the neighbour sends to."""
        return run_in(node.attach.netns("q"), lambda: run(f"ip neigh show {address} dev net1"))

    def knock(address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"who are you", (address, 9))

    node.define("net", {**MACVLAN, "ipam": {"type": "static"}})
    asked = {"name": "net", "ips": ["10.9.0.2/24", "fd09::2/64"]}
    node.pod("p", [asked])
    node.pod("r", [asked])
    node.pod("q", [{"name": "net", "ips": ["10.9.0.3/24", "fd09::3/64"]}])
    await node.add("q")
    await node.add("p")

    def learned(address: str) -> bool:
        """What is sent while the machine's one table of neighbours is full is dropped without a word."""
        run_in(node.attach.netns("q"), partial(knock, address))
        return "lladdr" in known(address)

    for address in ("10.9.0.2", "fd09::2"):
        await node.until(partial(learned, address))
    await node.delete("p")
    await node.add("r")
    mac = node.inside("r").links["net1"].mac
    assert mac
    for address in ("10.9.0.2", "fd09::2"):
        await node.until(lambda address=address: mac in known(address))  # type: ignore[misc]
    for pod in ("q", "r"):
        await node.delete(pod)
    assert node.leftovers() == []
