"""Second opinions on our encoding: what we send, others read; what others send, we read."""

import asyncio
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from kernels import linux_kernel
from pyroute2 import AsyncIPRoute

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import run_in
from towpath.model.net import Address, Bridge, Fdb, Link, Neighbour, Redirect, Route, Shaper, Veth, Vxlan
from towpath.model.op import Add, AddLink, Op, SetLink

pytestmark = pytest.mark.kernel

MAC = "02:00:00:00:00:09"
UPLINK = Link(
    name="up0", kind=Veth(peer="up1", peer_mac="02:00:00:00:01:02", peer_mtu=1500), mac="02:00:00:00:01:01"
)
VXLAN = Link(
    name="flannel.1",
    kind=Vxlan(vni=7, port=8472, local=ip_address("192.0.2.1"), underlay="up0"),
    mtu=1450,
    mac="02:00:00:00:02:01",
)
BUILD: list[Op] = [
    AddLink(UPLINK),
    Add(Address(dev="up0", interface=ip_interface("192.0.2.1/24"))),
    Add(Address(dev="up0", interface=ip_interface("2001:db8::1/64"))),
    AddLink(VXLAN),
    AddLink(Link(name="br0", kind=Bridge(), mac="02:00:00:00:03:01")),
    Add(Neighbour(dev="flannel.1", addr=ip_address("10.42.1.0"), mac=MAC)),
    Add(Fdb(dev="flannel.1", mac=MAC, dst=ip_address("192.0.2.2"))),
    Add(
        Route(
            dst=ip_network("10.42.1.0/24"),
            dev="flannel.1",
            via=ip_address("10.42.1.0"),
            onlink=True,
            mtu=1400,
        )
    ),
    Add(Shaper(dev="up0", rate=8_000_000, burst=800_000)),
    Add(Redirect(dev="up0", ifb="br0")),
]


@pytest.fixture
def node() -> Iterator[tuple[LinuxKernel, int]]:
    with linux_kernel() as made:
        yield made


def attrs(message: Any) -> dict[str, Any]:
    return dict(message["attrs"])


async def pyroute2_view() -> dict[str, list[Any]]:
    """Everything of the calling thread's namespace, as pyroute2 decodes it."""
    async with AsyncIPRoute() as ip:
        return {
            "links": [link async for link in await ip.get_links()],
            "addresses": [a async for a in await ip.get_addr(family=10)],
            "routes": [r async for r in await ip.get_routes(family=2, table=254)],
            "neighbours": [n async for n in await ip.get_neighbours(family=2)],
            "fdb": [e async for e in await ip.fdb("dump")],
        }


def test_pyroute2_reads_what_we_wrote(node: tuple[LinuxKernel, int]) -> None:
    kernel, netns = node
    kernel.apply(BUILD)
    view = run_in(netns, lambda: asyncio.run(pyroute2_view()))
    index = {attrs(link)["IFLA_IFNAME"]: link["index"] for link in view["links"]}
    [link] = [link for link in view["links"] if link["index"] == index["flannel.1"]]
    told = attrs(link)
    vxlan = attrs(attrs(told["IFLA_LINKINFO"])["IFLA_INFO_DATA"])
    assert (told["IFLA_MTU"], told["IFLA_ADDRESS"]) == (1450, "02:00:00:00:02:01")
    assert (vxlan["IFLA_VXLAN_ID"], vxlan["IFLA_VXLAN_PORT"]) == (7, 8472)
    assert (vxlan["IFLA_VXLAN_LOCAL"], vxlan["IFLA_VXLAN_LINK"]) == ("192.0.2.1", index["up0"])
    assert (vxlan["IFLA_VXLAN_LEARNING"], vxlan["IFLA_VXLAN_UDP_CSUM"]) == (0, 1)
    [route] = [r for r in view["routes"] if attrs(r)["RTA_OIF"] == index["flannel.1"]]
    assert (route["dst_len"], route["proto"], route["scope"], route["flags"] & 4) == (24, 3, 0, 4)
    assert attrs(route)["RTA_GATEWAY"] == "10.42.1.0"
    [neighbour] = [n for n in view["neighbours"] if n["ifindex"] == index["flannel.1"]]
    assert (neighbour["state"], attrs(neighbour)["NDA_LLADDR"]) == (0x80, MAC)
    assert [attrs(e)["NDA_DST"] for e in view["fdb"] if attrs(e).get("NDA_LLADDR") == MAC] == ["192.0.2.2"]
    flags = [attrs(a)["IFA_FLAGS"] & 0x82 for a in view["addresses"] if a["index"] == index["up0"]]
    assert flags == [0x82], "permanent, NODAD, and no link-local address"


def test_tc_reads_what_we_wrote(node: tuple[LinuxKernel, int]) -> None:
    kernel, netns = node
    kernel.apply(BUILD)

    def tc(*words: str) -> str:
        command = ["tc", *words, "dev", "up0"]
        return run_in(
            netns, lambda: subprocess.run(command, capture_output=True, text=True, check=True)
        ).stdout

    assert "qdisc tbf 1: root refcnt 2 rate 8Mbit burst 100000b lat 25ms" in tc("qdisc", "show")
    shown = tc("filter", "show", "parent", "ffff:")
    assert "match 00000000/00000000 at 0" in shown
    assert "mirred (Egress Redirect to device br0) stolen" in shown


BY_HAND = """
link add up0 address 02:00:00:00:01:01 type veth peer name up1 address 02:00:00:00:01:02
link set up0 up
address add 192.0.2.1/24 dev up0
address add 2001:db8::1/64 dev up0 nodad
link add flannel.1 type vxlan id 1 dev up0 local 192.0.2.1 dstport 8472 nolearning
link set flannel.1 up
route add 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink
route add blackhole 10.42.0.0/16
route add default metric 100 nexthop via 192.0.2.7 nexthop via 192.0.2.8
route add 198.51.100.0/24 via inet6 2001:db8::7 dev up0
neighbour add 10.42.1.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent
neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev up0 nud reachable
link add other type vxlan id 2 dstport 4789 remote 192.0.2.2 dev up0
link add name under_score type bridge
"""


def test_we_read_what_ip_wrote(node: tuple[LinuxKernel, int]) -> None:
    kernel, netns = node
    run_in(netns, lambda: subprocess.run(["ip", "-batch", "-"], input=BY_HAND, text=True, check=True))
    bridge = ["bridge", "fdb", "add", MAC, "dev", "flannel.1", "dst", "192.0.2.2", "self", "permanent"]
    run_in(netns, lambda: subprocess.run(bridge, check=True))
    state = kernel.observe()
    kind = Vxlan(vni=1, port=8472, local=ip_address("192.0.2.1"), underlay="up0")
    assert state.links["flannel.1"].kind == kind
    assert state.links["other"].kind is None, "without a local address it is none that we would make"
    assert state.links["under_score"].kind == Bridge()
    v4 = {a.interface for a in state.addresses if a.dev == "up0" and a.interface.version == 4}
    assert v4 == {ip_interface("192.0.2.1/24")}
    peer = Route(dst=ip_network("10.42.1.0/24"), dev="flannel.1", via=ip_address("10.42.1.0"), onlink=True)
    assert {r for r in state.routes if r.dev == "flannel.1"} == {peer}
    assert not [r for r in state.routes if r.dst.prefixlen in (0, 16)], "neither blackholes nor multipath"
    assert state.neighbours == {Neighbour(dev="flannel.1", addr=ip_address("10.42.1.0"), mac=MAC)}
    assert {e for e in state.fdb if e.dev == "flannel.1"} == {
        Fdb(dev="flannel.1", mac=MAC, dst=ip_address("192.0.2.2"))
    }


def test_peers_in_other_namespaces_are_seen_and_lost_ones_are_blank() -> None:
    with linux_kernel() as (node, _), linux_kernel() as (pod, netns):
        veth = Link(name="cali1", kind=Veth(peer="eth0", peer_mac=MAC, peer_mtu=1400), mac=MAC, mtu=1450)
        node.apply([AddLink(veth)], netns)
        assert node.observe().links["cali1"] == veth
        kind = pod.observe().links["eth0"].kind
        assert kind == Veth(peer="cali1", peer_mac=MAC, peer_mtu=1450)
        pod.apply([SetLink("eth0", mtu=1300)])
        assert node.observe().links["cali1"].kind == Veth(peer="eth0", peer_mac=MAC, peer_mtu=1300)
