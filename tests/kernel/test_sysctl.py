"""Sysctls of a namespace are reached from outside it."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from kernels import linux_kernel

from towpath.kernel.linux import LinuxKernel
from towpath.kernel.netns import route_socket_in, run_in
from towpath.kernel.port import KernelRefused
from towpath.kernel.sysctl import KeptOpen, Sysctls
from towpath.model.net import Ifb, Link
from towpath.model.op import AddLink, DelLink, SetSysctl

pytestmark = pytest.mark.kernel

PATHS = ("net/ipv4/conf/ifb9/proxy_arp", "net/ipv6/conf/ifb9/accept_ra")


@pytest.fixture
def netns() -> Iterator[int]:
    with linux_kernel() as (kernel, netns):
        kernel.apply([AddLink(Link(name="ifb9", kind=Ifb()))])
        yield netns


def test_two_descriptors_reach_the_namespace_they_were_opened_in(netns: int) -> None:
    folders = [run_in(netns, partial(os.open, f"/proc/sys/net/{f}", os.O_RDONLY)) for f in ("ipv4", "ipv6")]
    handed = Sysctls.handed(folders[0], folders[1])
    assert handed.read(PATHS) == dict(zip(PATHS, ("0", "1"), strict=True))
    handed.write(PATHS[1], "0")
    inside, outside = run_in(netns, Sysctls.here), Sysctls.here()
    assert inside.read(PATHS)[PATHS[1]] == "0"
    assert outside.read(PATHS) == {}
    for sysctls in (handed, inside, outside):
        sysctls.close()
    for fd in folders:
        os.close(fd)  # still ours


def test_what_was_not_handed_over_is_not_there(netns: int) -> None:
    folder = run_in(netns, lambda: os.open("/proc/sys/net/ipv4", os.O_RDONLY))
    handed = Sysctls.handed(folder, None)
    everywhere = (*PATHS, "kernel/osrelease", "net/ipv4/../../kernel/osrelease")
    assert handed.read(everywhere) == {PATHS[0]: "0"}
    for path in everywhere[1:]:
        with pytest.raises(OSError, match=r"no handle|cannot go up"):
            handed.write(path, "1")
    os.close(folder)
    sock = route_socket_in(netns)
    kernel = LinuxKernel(sock, nft=False)
    with pytest.raises(KernelRefused, match="no handle"):
        kernel.apply([SetSysctl(PATHS[0], "1")])
    sock.close()


def test_values_of_several_words_are_told_with_single_blanks() -> None:
    with linux_kernel() as (kernel, _):
        path = "net/ipv4/ip_local_port_range"
        kernel.apply([SetSysctl(path, "20000 40000")])
        assert kernel.observe([path]).sysctls == {path: "20000 40000"}


def test_global_sysctls_are_reached_by_path() -> None:
    with linux_kernel() as (kernel, _):
        assert kernel.observe(["kernel/osrelease"]).sysctls == {"kernel/osrelease": os.uname().release}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("most", [0, 1, 100])
def test_settings_that_are_kept_open_are_those_that_are_there(most: int) -> None:
    """Whatever is changed, and also when the device goes and another of its name comes."""
    with linux_kernel() as (kernel, netns):
        kernel.apply([AddLink(Link(name="ifb9", kind=Ifb()))])
        sysctls = run_in(netns, Sysctls.here)
        kept = KeptOpen(sysctls, most)
        before = open_files()
        wanted = dict.fromkeys((*PATHS, "net/ipv4/conf/absent/proxy_arp"), "1")
        for _ in range(2):
            assert kept.others(wanted) == [PATHS[0]]
        kernel.apply([SetSysctl(PATHS[0], "1"), SetSysctl(PATHS[1], "0")])
        assert kept.others(wanted) == [PATHS[1]]
        kernel.apply([DelLink("ifb9")])
        assert kept.others(wanted) == []
        kernel.apply([AddLink(Link(name="ifb9", kind=Ifb()))])
        assert kept.others(wanted) == [PATHS[0]]
        assert open_files() - before == min(most, 2)
        assert kept.others({}) == []
        assert open_files() == before
        assert kept.others(wanted) == [PATHS[0]]
        kept.close()
        assert open_files() == before
        sysctls.close()
