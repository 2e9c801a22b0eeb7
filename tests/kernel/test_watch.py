"""What a watch hears, and what it keeps to itself."""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from kernels import linux_kernel

from patience import ATTEMPTS, true
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.kernel.watch import NetlinkWatch
from towpath.model.net import Address, Fdb, Link, Neighbour, Redirect, Route, Shaper, Veth, Vxlan
from towpath.model.nft import NftChain, NftSet
from towpath.model.op import Add, AddLink, Delete, DelLink, NftUpdate, Op, SetLink, SetSysctl

pytestmark = pytest.mark.kernel

MAC = "02:00:00:00:00:09"
UPLINK = Link(name="up0", kind=Veth(peer="up1", peer_mac=MAC, peer_mtu=1500))
VXLAN = Link(name="vx", kind=Vxlan(vni=1, port=8472, local=ip_address("192.0.2.1"), underlay="up0"))
SET = NftSet(name="s", key=("mark",))


class Ear:
    """A watched namespace and what was heard since last asked."""

    def __init__(self, kernel: LinuxKernel, netns: int) -> None:
        self.kernel, self.netns = kernel, netns
        self.heard: list[tuple[str, str]] = []
        self.watch = run_in(netns, lambda: NetlinkWatch(lambda *pair: self.heard.append(pair)))

    async def after(self, *ops: Op) -> set[tuple[str, str]]:
        self.kernel.apply(ops)
        return await self.silence()

    async def settled(self) -> None:
        """Wait for what the kernel tells later, from a queue of its own: that a link has its carrier."""

        def up() -> bool:
            run = partial(subprocess.run, ["ip", "-j", "link"], check=True, capture_output=True)
            links = json.loads(run_in(self.netns, run).stdout)
            states = {link["ifname"]: link["operstate"] for link in links}
            return states.get("up0") == states.get("up1") == "UP"

        await true(up)
        await self.silence()

    async def silence(self) -> set[tuple[str, str]]:
        """What was heard: the kernel had queued it before the change returned, and a turn reads it all."""
        await asyncio.sleep(0.05)
        heard, self.heard = set(self.heard), []
        return heard

    def ip(self, *words: str) -> None:
        run_in(self.netns, lambda: subprocess.run(["ip", *words], check=True))


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    with linux_kernel() as (kernel, netns):
        kernel.apply([AddLink(UPLINK), SetLink("up1", up=True), Add(EARLIER)])
        made = Ear(kernel, netns)
        made.watch.start()
        await made.settled()
        yield made
        made.watch.close()


EARLIER = Neighbour(dev="up0", addr=ip_address("192.0.2.77"), mac=MAC)
NEIGHBOUR = Neighbour(dev="up0", addr=ip_address("192.0.2.2"), mac=MAC)
ROUTE = Route(dst=ip_network("10.9.0.0/16"), dev="up0", scope="link")
ADDRESS = Address(dev="up0", interface=ip_interface("192.0.2.1/24"))


async def test_every_kind_is_heard(ear: Ear) -> None:
    assert ("link", "vx") in await ear.after(AddLink(VXLAN))
    for item, kind in (
        (ADDRESS, "address"),
        (Address(dev="up0", interface=ip_interface("fd00::1/64")), "address"),
        (ROUTE, "route"),
        (Route(dst=ip_network("fd09::/64"), dev="up0"), "route"),
        (NEIGHBOUR, "neighbour"),
        (Shaper(dev="up0", rate=8_000_000, burst=80_000), "qdisc"),
        (Redirect(dev="up0", ifb="up1"), "qdisc"),
    ):
        assert (kind, "up0") in await ear.after(Add(item))
        assert (kind, "up0") in await ear.after(Delete(item))
    fdb = Fdb(dev="vx", mac=MAC, dst=ip_address("192.0.2.2"))
    late = {("link", "vx")}  # its carrier
    assert await ear.after(Add(fdb)) - late == {("fdb", "vx")}
    assert await ear.after(Delete(fdb)) - late == {("fdb", "vx")}
    assert ("link", "up0") in await ear.after(SetLink("up0", mtu=1400))
    assert ("link", "up0") in await ear.after(SetLink("up0", up=False))
    assert {("unlink", "up0"), ("unlink", "up1"), ("unlink", "vx")} <= await ear.after(DelLink("up0"))


async def test_nftables_is_heard_by_table(ear: Ear) -> None:
    create = NftUpdate(table="towpath", add_sets=(SET,), set_chains=(NftChain(name="c", rules=("drop",)),))
    assert await ear.after(create) == {("nft", "towpath")}
    assert await ear.after(NftUpdate(table="towpath", add_elements=((SET, {(1,): ()}),))) == {
        ("nft", "towpath")
    }
    run_in(ear.netns, lambda: subprocess.run(["nft", "add table ip kube-proxy; flush ruleset"], check=True))
    assert await ear.silence() == {("nft", "towpath"), ("flushed", "towpath")}


async def test_forwarding_and_proxying_are_heard(ear: Ear) -> None:
    for path in (
        "net/ipv4/conf/up0/forwarding",
        "net/ipv6/conf/up0/forwarding",
        "net/ipv4/conf/up0/proxy_arp",
        "net/ipv6/conf/up0/proxy_ndp",
    ):
        assert ("sysctl", "up0") in await ear.after(SetSysctl(path, "1"))
    ear.kernel.apply([SetSysctl("net/ipv4/ip_forward", "0")])
    assert ("sysctl", "") in await ear.after(SetSysctl("net/ipv4/ip_forward", "1"))
    ear.kernel.apply([SetSysctl("net/ipv6/conf/all/forwarding", "0")])
    assert ("sysctl", "") in await ear.after(SetSysctl("net/ipv6/conf/all/forwarding", "1"))


async def test_what_comes_and_goes_by_itself_is_not_told(ear: Ear) -> None:
    await ear.after(Add(ADDRESS))
    ear.ip("neighbour", "add", "192.0.2.9", "lladdr", MAC, "dev", "up0", "nud", "reachable")
    ear.ip("neighbour", "del", "192.0.2.9", "dev", "up0")
    assert await ear.silence() == set()


async def test_a_permanent_neighbour_that_is_spoilt_is_told(ear: Ear) -> None:
    await ear.after(Add(NEIGHBOUR))
    ear.ip("neighbour", "change", "192.0.2.2", "lladdr", MAC, "dev", "up0", "nud", "reachable")
    assert await ear.silence() == {("neighbour", "up0")}
    ear.ip("neighbour", "del", "192.0.2.77", "dev", "up0")
    assert await ear.silence() == {("neighbour", "up0")}, "also one that was there before the watch"


async def test_an_overrun_is_told(ear: Ear) -> None:
    many = [Add(Route(dst=ip_network((0x0B000000 + i * 256, 24)), dev="up0")) for i in range(8000)]
    ear.kernel.apply(many)
    assert ("overrun", "") in await ear.silence()
    assert await ear.after(Delete(many[0].item)) == {("route", "up0")}, "and then it goes on"


async def test_a_removal_is_heard_before_it_is_over(ear: Ear) -> None:
    """By tens of milliseconds, in which a busy machine may do other things: once is proof enough."""
    times: list[float] = []
    ear.watch.close()
    watch = run_in(
        ear.netns,
        lambda: NetlinkWatch(lambda kind, _: times.append(time.perf_counter()) if kind == "unlink" else None),
    )
    watch.start()
    with_own_socket = run_in(ear.netns, lambda: LinuxKernel(nft=False))

    def delete() -> float:
        with_own_socket.apply([DelLink("up0")])
        return time.perf_counter()

    for _ in range(ATTEMPTS):
        times.clear()
        over = await asyncio.to_thread(delete)
        await true(lambda: times)
        if times[0] <= over:
            break
        ear.kernel.apply([AddLink(UPLINK)])
    assert times[0] <= over
    watch.close()
    with_own_socket.close()
