"""Everything works with NET_ADMIN alone, as a uid of no privilege; without it, the refusal says so."""

import ctypes
import os
import struct
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from test_behaviour_nft import TABLE, creation

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import new_netns, route_socket_in, run_in
from towpath.kernel.port import KernelRefused
from towpath.kernel.watch import NetlinkWatch
from towpath.model.net import Address, Ifb, Link, Neighbour, Redirect, Route, Shaper, Veth
from towpath.model.op import Add, AddLink, DelLink, FlushConntrack, Op, SetLink, SetSysctl

pytestmark = pytest.mark.kernel

NET_ADMIN, AGENT = 12, 65532
FAMILIES = ("ipv4", "ipv6")
PROXY_ARP = "net/ipv4/conf/cali1/proxy_arp"
MAC = "02:00:00:00:00:09"
VETH = Link(name="cali1", kind=Veth(peer="eth0", peer_mac=MAC, peer_mtu=1400), mtu=1450, mac=MAC)


def become(uid: int, capabilities: int) -> None:
    """Another user (where the user namespace has one) with only these capabilities, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:  # one mapped uid only
        pass
    header = struct.pack("=Ii", 0x20080522, 0)
    assert libc.capset(header, struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)) == 0
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a process of its own, and fail as it fails."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, told


class Shimmed:
    """A node's namespace, and a pod's as the shim hands it over: opened by root, used by the agent."""

    def __init__(self) -> None:
        self.node, self.pod = new_netns(), new_netns()
        self.route = route_socket_in(self.pod)
        self.folders = [
            run_in(self.pod, partial(os.open, f"/proc/sys/net/{f}", os.O_RDONLY)) for f in FAMILIES
        ]

    def run(self, work: Callable[[], None]) -> None:
        run_in(self.node, lambda: in_child(work))

    def inside(self) -> LinuxKernel:
        return LinuxKernel(self.route, (self.folders[0], self.folders[1]), nft=False)

    def close(self) -> None:
        self.route.close()
        for fd in (self.node, self.pod, *self.folders):
            os.close(fd)


@pytest.fixture
def shimmed() -> Iterator[Shimmed]:
    made = Shimmed()
    yield made
    made.close()


def test_net_admin_is_enough(shimmed: Shimmed) -> None:
    def work() -> None:
        become(AGENT, 1 << NET_ADMIN)
        kernel, pod = LinuxKernel(), shimmed.inside()
        watch = NetlinkWatch(lambda *_: None)
        ops: list[Op] = [
            AddLink(VETH),
            AddLink(Link(name="ifb1", kind=Ifb())),
            SetSysctl(PROXY_ARP, "1"),
            SetSysctl("net/ipv4/ip_forward", "1"),
            Add(Address(dev="cali1", interface=ip_interface("fe80::1/64"), scope="link")),
            Add(Route(dst=ip_network("10.42.0.5/32"), dev="cali1", scope="link")),
            Add(Neighbour(dev="cali1", addr=ip_address("10.42.0.5"), mac=MAC)),
            Add(Shaper(dev="cali1", rate=8_000_000, burst=800_000)),
            Add(Redirect(dev="cali1", ifb="ifb1")),
            creation(),
            FlushConntrack(ip_address("10.42.0.5")),
        ]
        kernel.apply(ops, shimmed.pod)
        inside = Address(dev="eth0", interface=ip_interface("10.42.0.5/32"))
        pod.apply([SetSysctl("net/ipv6/conf/eth0/accept_ra", "0"), SetLink("eth0", up=True), Add(inside)])
        assert inside in pod.observe().addresses
        state = kernel.observe([PROXY_ARP], "towpath")
        assert state.links["cali1"] == VETH
        assert state.nft == TABLE
        assert state.sysctls == {PROXY_ARP: "1"}
        assert len(state.shapers | state.redirects | state.routes | state.neighbours) == 4
        kernel.apply([DelLink("cali1")])
        watch.close()

    shimmed.run(work)


def test_without_it_the_refusal_says_what_is_needed(shimmed: Shimmed) -> None:
    def work() -> None:
        become(AGENT, 0)
        kernel = LinuxKernel()
        for op in (AddLink(VETH), creation(), SetSysctl("net/ipv4/ip_forward", "1")):
            try:
                kernel.apply([op], shimmed.pod)
            except KernelRefused as error:
                assert "NET_ADMIN" in error.hint, str(error)
            else:
                raise AssertionError(op)

    shimmed.run(work)
