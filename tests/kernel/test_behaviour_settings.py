"""What ``port.Kernel`` promises of bandwidth limits and sysctls, asked of both kernels alike."""

from collections.abc import Iterator
from errno import EACCES, EINVAL, ENOENT

import pytest
from kernel_objects import UPLINK, VETH, add, addr, refused, route
from kernels import BOTH, Pair

from towpath.model.net import Ifb, Link, Redirect, Shaper
from towpath.model.op import Add, AddLink, Delete, DelLink, Op, SetLink, SetSysctl

pytestmark = pytest.mark.kernel


@pytest.fixture(params=BOTH)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made


def test_bandwidth_limits_are_told_again(pair: Pair) -> None:
    ifb = Link(name="ifb1", kind=Ifb(), mtu=1450)
    shapers = {
        Shaper(dev="cali1", rate=1_000_000, burst=262_144),
        Shaper(dev="ifb1", rate=100_000_000_000, burst=2_000_000_000, latency=40),
    }
    redirect = Redirect(dev="cali1", ifb="ifb1")
    ops: list[Op] = [AddLink(ifb), *add(shapers), Add(redirect)]
    pair.node.apply([AddLink(VETH), *ops, *ops], pair.netns)
    state = pair.node.observe()
    assert state.shapers == shapers
    assert state.redirects == {redirect}
    faster = Shaper(dev="cali1", rate=12_345_672, burst=524_296, latency=25)
    pair.node.apply([Add(faster)])
    assert faster in pair.node.observe().shapers
    pair.node.apply([DelLink("ifb1")])
    assert not pair.node.observe().redirects
    pair.node.apply([AddLink(ifb), Add(redirect)])
    assert pair.node.observe().redirects == {redirect}
    pair.node.apply([Delete(redirect), Delete(faster)])
    state = pair.node.observe()
    assert not (state.shapers or state.redirects)


def test_sysctls(pair: Pair) -> None:
    names = (
        "net/ipv4/conf/cali1/proxy_arp",
        "net/ipv6/conf/cali1/accept_ra",
        "net/ipv4/neigh/cali1/proxy_delay",
    )
    values = dict(zip(names, ("1", "0", "0"), strict=True))
    missing = "net/ipv4/conf/absent/proxy_arp"
    assert pair.node.observe([*names, missing]).sysctls == {}
    pair.node.apply([AddLink(VETH), *(SetSysctl(k, v) for k, v in values.items())], pair.netns)
    assert pair.node.observe([*names, missing]).sysctls == values
    assert refused(pair, SetSysctl(missing, "1")).errno == ENOENT
    assert refused(pair, SetSysctl(names[0], "much")).errno == EINVAL


def test_forwarding_is_coupled(pair: Pair) -> None:
    pair.node.apply([SetSysctl("net/ipv4/ip_forward", "1"), SetSysctl("net/ipv6/conf/all/forwarding", "1")])
    pair.node.apply([AddLink(VETH)], pair.netns)
    paths = (
        "net/ipv4/conf/all/forwarding",
        "net/ipv4/conf/cali1/forwarding",
        "net/ipv6/conf/cali1/forwarding",
    )
    assert set(pair.node.observe(paths).sysctls.values()) == {"1"}


def test_a_device_without_ipv6(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK), Add(addr("up0", "2001:db8::1/64")), Add(route("fd01::/64", "up0"))])
    pair.node.apply([SetSysctl("net/ipv6/conf/up0/disable_ipv6", "1")])
    state = pair.node.observe()
    assert not (state.addresses or state.routes)
    assert refused(pair, Add(addr("up0", "2001:db8::1/64"))).errno == EACCES
    assert refused(pair, Add(route("fd01::/64", "up0"))).errno == EACCES


def test_a_pods_end_makes_its_own_link_local_address_and_ours_does_not(pair: Pair) -> None:
    pair.node.apply([AddLink(VETH)], pair.netns)
    pair.pod.apply([SetSysctl("net/ipv6/conf/eth0/accept_dad", "0"), SetLink("eth0", up=True)])
    assert pair.pod.observe().addresses == {addr("eth0", "fe80::ff:fe00:9/64", "link")}
    assert not pair.node.observe().addresses
