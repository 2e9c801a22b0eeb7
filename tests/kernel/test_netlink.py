"""The socket: batches, answers, interrupted dumps."""

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from struct import Struct
from typing import Any

import pytest
from kernels import linux_kernel

from towpath.kernel import links, rtnl
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.netns import new_netns, run_in
from towpath.kernel.port import KernelRefused
from towpath.model.net import Address, Ifb, Link, Neighbour, Veth
from towpath.model.op import Add, AddLink, SetLink

pytestmark = pytest.mark.kernel

_HEADER = Struct("=IHHII")


@pytest.fixture
def sock() -> Iterator[NetlinkSocket]:
    netns = new_netns()
    made = run_in(netns, NetlinkSocket.open)
    os.close(netns)
    yield made
    made.close()


class Interrupted(socket.socket):
    """A netlink socket whose first dumps say that something changed meanwhile."""

    spoilt = 0

    def recv_into(self, buffer: Any, *args: Any) -> int:
        size = super().recv_into(buffer, *args)
        if self.spoilt:
            head = _HEADER.unpack_from(buffer)
            if head[1] != 3:  # one of the objects; NLMSG_DONE stays as it is
                self.spoilt -= 1
                _HEADER.pack_into(buffer, 0, head[0], head[1], head[2] | 0x10, *head[3:])
        return size


def interrupted(times: int) -> NetlinkSocket:
    raw = Interrupted(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    raw.spoilt = times
    return NetlinkSocket(raw)


def test_an_interrupted_dump_is_taken_again() -> None:
    sock = interrupted(3)
    assert [dev.name for dev in links.devices(sock)].count("lo") == 1
    sock.close()


def test_a_dump_that_never_ends_well_is_given_up() -> None:
    sock = interrupted(10_000)
    with pytest.raises(KernelRefused, match="interrupted by changes"):
        links.devices(sock)
    sock.close()


def test_failures_are_told_by_place_and_stop_nothing(sock: NetlinkSocket) -> None:
    good = rtnl.encode_address(Address(dev="lo", interface=ip_interface("127.0.0.2/8"), scope="host"), 1)
    bad = Message(rtnl.RTM_NEWADDR, 0, good.body[:4] + b"\x63\0\0\0" + good.body[8:])
    failures = sock.request([bad, good, bad, good, bad])
    assert [(f.place, f.errno) for f in failures] == [(0, 19), (2, 19), (4, 19)]
    assert len(sock.dump(rtnl.RTM_GETADDR, rtnl.DUMP_ADDRESSES)) == 1
    assert sock.request([bad._replace(forgive=frozenset({19})), good]) == []


def test_the_kernels_own_words_are_kept() -> None:
    with linux_kernel() as (kernel, _):
        veth = Veth(peer="v1", peer_mac="02:00:00:00:00:01", peer_mtu=1500)
        kernel.apply([AddLink(Link(name="v0", kind=veth))])
        with pytest.raises(KernelRefused) as caught:
            kernel.apply([SetLink("v0", mtu=1)])
        assert caught.value.reason == "mtu less than device minimum (Invalid argument)"
        with pytest.raises(KernelRefused, match="no interface name"):
            kernel.apply([SetLink("a name that is too long", up=True)])


def test_more_messages_than_fit_one_batch() -> None:
    with linux_kernel() as (kernel, _):
        kernel.apply([AddLink(Link(name="ifb0", kind=Ifb()))])
        neighbours = {
            Neighbour(dev="ifb0", addr=ip_address(f"10.0.{i >> 8}.{i & 255}"), mac="02:00:00:00:00:01")
            for i in range(1500)
        }
        kernel.apply([Add(n) for n in neighbours])
        assert kernel.observe().neighbours == neighbours


def test_errors_in_every_message_of_a_large_batch_are_all_heard(sock: NetlinkSocket) -> None:
    bad = Message(rtnl.RTM_NEWADDR, 0, b"\2\x20\0\0\x63\0\0\0\x08\0\x02\0\x7f\0\0\x02")
    assert len(sock.request([bad] * 1000)) == 1000


def test_answers_nobody_waited_for_are_passed_over(sock: NetlinkSocket) -> None:
    for seq in (7, 8):
        sock.socket.send(_HEADER.pack(32, links.RTM_GETLINK, 0x5, seq, 0) + b"\0\0\0\0\x63" + bytes(11))
    assert sock.request([links.change(1, up=True)]) == []
    [loopback] = links.devices(sock)
    assert loopback.up


def test_a_listing_that_fails_is_a_refusal(sock: NetlinkSocket) -> None:
    with pytest.raises(KernelRefused, match=r"list netlink objects \(type 999\): Operation not supported"):
        sock.dump(999, bytes(16))
    sock.close()
    with pytest.raises(KernelRefused, match="Bad file descriptor"):
        links.devices(sock)


def test_a_socket_speaks_of_the_namespace_it_was_opened_in() -> None:
    with linux_kernel() as (kernel, netns):
        kernel.apply([AddLink(Link(name="ifb0", kind=Ifb()))])
        raw = run_in(netns, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE))
        handed = LinuxKernel(raw, nft=False)
        assert set(handed.observe().links) == {"lo", "ifb0"}
        handed.close()
        assert raw.fileno() >= 0, "what was handed over stays the caller's"
        raw.close()
