"""The fake against the running kernel: the same operations, whatever they are, lead to the same state."""

from contextlib import ExitStack
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from kernels import Pair, fake_pair, linux_pair

from towpath.kernel.port import Kernel, KernelRefused
from towpath.model.net import (
    Address,
    Bridge,
    Fdb,
    Ifb,
    Link,
    Neighbour,
    Redirect,
    Route,
    Shaper,
    Veth,
    Vxlan,
)
from towpath.model.op import Add, AddLink, Delete, DelLink, Op, SetLink, SetSysctl
from towpath.model.state import NetState

pytestmark = pytest.mark.kernel

T = TypeVar("T")
NAMES = ("up0", "up1", "br0", "flannel.1", "flannel-v6.1", "ifb1", "cali1", "eth0")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "ee:ee:ee:ee:ee:ee")
LINKS = (
    Link(
        name="up0", kind=Veth(peer="up1", peer_mac="02:00:00:00:01:02", peer_mtu=1500), mac=MACS[0], mtu=1500
    ),
    Link(name="br0", kind=Bridge(), mtu=1500, mac="02:00:00:00:03:01"),
    Link(
        name="flannel.1",
        kind=Vxlan(vni=1, port=8472, local=ip_address("192.0.2.1"), underlay="up0"),
        mtu=1450,
        mac="02:00:00:00:02:01",
    ),
    Link(
        name="flannel-v6.1",
        kind=Vxlan(vni=1, port=8472, local=ip_address("2001:db8::1"), underlay="up0"),
        mtu=1450,
        mac="02:00:00:00:02:02",
    ),
    Link(name="ifb1", kind=Ifb(), mtu=1450, mac="02:00:00:00:04:01"),
)
POD = Link(name="cali1", kind=Veth(peer="eth0", peer_mac=MACS[1], peer_mtu=1400), mac=MACS[2], mtu=1450)

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::2", "fd01::1")
INTERFACES = (
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.0.1/32",
    "10.0.1.1/16",
    "fd00::1/64",
    "fd00::2/64",
    "fd00::1/128",
)
NETWORKS = ("10.9.0.0/16", "10.9.1.0/24", "10.0.1.1/32", "0.0.0.0/0", "fd09::/64", "fd01::1/128", "::/0")

devices = st.sampled_from(NAMES)
ips = st.sampled_from(ADDRESSES).map(ip_address)
macs = st.sampled_from(MACS)
addresses = st.builds(
    Address,
    dev=devices,
    interface=st.sampled_from(INTERFACES).map(ip_interface),
    scope=st.sampled_from(("global", "link")),
)
routes = st.builds(
    Route,
    dst=st.sampled_from(NETWORKS).map(ip_network),
    dev=devices,
    via=st.none() | ips,
    onlink=st.booleans(),
    scope=st.sampled_from(("global", "link")),
    src=st.none() | ips,
    table=st.sampled_from((254, 254, 1000)),
    mtu=st.sampled_from((0, 1300)),
)
items = st.one_of(
    addresses,
    routes,
    routes,
    st.builds(Neighbour, dev=devices, addr=ips, mac=macs),
    st.builds(Fdb, dev=devices, mac=macs, dst=ips),
    st.builds(Shaper, dev=devices, rate=st.sampled_from((8_000_000, 10**11)), burst=st.just(800_000)),
    st.builds(Redirect, dev=devices, ifb=st.sampled_from(("ifb1", "up0"))),
)


class Machine(RuleBasedStateMachine):
    """Every operation goes to both; then both are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.fake: Pair = self._stack.enter_context(fake_pair())
        self.linux: Pair = self._stack.enter_context(linux_pair())

    def teardown(self) -> None:
        self._stack.close()

    @initialize()
    def begin(self) -> None:
        # Loopback first: without any address at all no gateway is good enough for the kernel.
        self.both(SetLink("lo", up=True), *(AddLink(link) for link in LINKS), SetLink("up1", up=True))

    @rule(link=st.sampled_from(LINKS))
    def add_link(self, link: Link) -> None:
        self.both(AddLink(link))

    @rule()
    def add_pod(self) -> None:
        self.both(AddLink(POD))

    @rule(name=devices)
    def delete_link(self, name: str) -> None:
        self.both(DelLink(name))

    @rule(name=devices, up=st.booleans())
    def up_or_down(self, name: str, up: bool) -> None:
        self.both(SetLink(name, up=up))

    @rule(name=devices, mac=macs)
    def renumber(self, name: str, mac: str) -> None:
        self.both(SetLink(name, mac=mac))

    @rule(name=st.sampled_from(("flannel.1", "flannel-v6.1")), mtu=st.sampled_from((1400, 1440, 1450, 9000)))
    def resize(self, name: str, mtu: int) -> None:
        self.both(SetLink(name, mtu=mtu))

    @rule(batch=st.lists(items, min_size=1, max_size=4))
    def add(self, batch: list[Address | Route | Neighbour | Fdb | Shaper | Redirect]) -> None:
        for item in batch:
            assume(not self._own_gateway(item))
            self.both(Add(item))

    @rule(item=items)
    def delete(self, item: Address | Route | Neighbour | Fdb | Shaper | Redirect) -> None:
        self.both(Delete(item))

    @rule(name=devices, leaf=st.sampled_from(("proxy_arp", "forwarding")), value=st.sampled_from("01"))
    def sysctl(self, name: str, leaf: str, value: str) -> None:
        self.both(SetSysctl(f"net/ipv4/conf/{name}/{leaf}", value))

    @rule(name=devices, value=st.sampled_from("01"))
    def disable_ipv6(self, name: str, value: str) -> None:
        self.both(SetSysctl(f"net/ipv6/conf/{name}/disable_ipv6", value))

    def both(self, *ops: Op) -> None:
        for op in ops:
            told = [outcome(pair.node, op, pair.netns) for pair in (self.fake, self.linux)]
            assert told[0] == told[1], op.describe()
            for fake, linux in ((self.fake.node, self.linux.node), (self.fake.pod, self.linux.pod)):
                assert differences(fake.observe(SYSCTLS), linux.observe(SYSCTLS)) == [], op.describe()

    def _own_gateway(self, item: object) -> bool:
        """A gateway that is an address of ours: the kernel refuses, in several ways."""
        if not isinstance(item, Route) or item.via is None:
            return False
        return any(a.interface.ip == item.via for a in self.fake.node.observe().addresses)


SYSCTLS = [f"net/ipv4/conf/{name}/forwarding" for name in NAMES]


def outcome(kernel: Kernel, op: Op, netns: int) -> int:
    """0, or the error's number."""
    try:
        kernel.apply([op], netns if isinstance(op, AddLink) and op.link == POD else None)
    except KernelRefused as error:
        return error.errno
    return 0


def differences(fake: NetState, linux: NetState) -> list[tuple[str, object, object]]:
    """What differs, less the link-local addresses the kernel makes when it gets around to it."""
    found: list[tuple[str, object, object]] = []
    for field in ("addresses", "routes", "neighbours", "fdb", "shapers", "redirects"):
        ours, theirs = getattr(fake, field), getattr(linux, field)
        odd = {x for x in ours ^ theirs if not (isinstance(x, Address) and x.interface.ip.is_link_local)}
        found += [(field, ours & odd, theirs & odd)] if odd else []
    for field in ("links", "sysctls"):
        ours, theirs = getattr(fake, field).items(), getattr(linux, field).items()
        found += [(field, [x for x in ours if x not in theirs], [x for x in theirs if x not in ours])]
    return [(field, ours, theirs) for field, ours, theirs in found if ours or theirs]


TestFake = Machine.TestCase
TestFake.settings = settings(
    max_examples=15,
    # No shrinking: each try takes two real namespaces, and twenty steps can be read.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
