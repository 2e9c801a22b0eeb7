"""Do the descriptors reach into the pod's namespace, from a process that never enters it?"""

# ruff: noqa: F401, F811  (fixtures are imported, and named again by the tests that use them)

import os
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from shim_harness import Recorder, Shim, attachment, enter, executable, handler, netns, server, shim

from patience import true
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.server import Server

pytestmark = pytest.mark.kernel

RTM_GETLINK, NLM_F_REQUEST_DUMP, NLMSG_DONE, IFLA_IFNAME = 18, 0x301, 3, 3


def link_names(netlink: socket.socket) -> set[str]:
    """Names of the links a route socket sees."""
    netlink.setblocking(True)
    netlink.send(struct.pack("=IHHII16x", 32, RTM_GETLINK, NLM_F_REQUEST_DUMP, 1, 0))
    names: set[str] = set()
    while True:
        data = netlink.recv(1 << 16)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == NLMSG_DONE:
                return names
            attributes = data[32:length]
            while attributes:
                size, code = struct.unpack_from("=HH", attributes)
                if code == IFLA_IFNAME:
                    names.add(attributes[4:size].rstrip(b"\0").decode())
                attributes = attributes[(size + 3) & ~3 :]
            data = data[length:]


def write_at(folder: int, path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY, dir_fd=folder)
    os.write(fd, value)
    os.close(fd)


async def test_netlink_socket_and_namespace_are_the_pods(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    seen: list[object] = []

    async def look(r: Request) -> None:
        assert r.descriptors is not None
        seen.append(link_names(r.descriptors.netlink))
        seen.append(os.fstat(r.descriptors.netns).st_ino)

    handler.on_add = look
    assert (await shim.run("ADD", attachment(netns)))[0] == 0
    assert seen == [{"lo", "pod0", "pod1"}, netns.stat().st_ino]


async def test_sysctls_written_through_the_folders_are_the_pods(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    """Also those of a device made after the folders were opened, though its name is unknown out here."""

    def add_late() -> None:
        subprocess.run(["ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1"], check=True)

    async def write(r: Request) -> None:
        assert r.descriptors is not None
        enter(r.descriptors.netns, add_late)
        ipv4, ipv6 = r.descriptors.sysctl["net/ipv4"], r.descriptors.sysctl["net/ipv6"]
        write_at(ipv4, "conf/pod0/arp_filter", b"1")
        write_at(ipv4, "conf/late0/arp_filter", b"1")
        write_at(ipv4, "conf/all/arp_notify", b"1")
        write_at(ipv6, "conf/pod0/hop_limit", b"77")
        write_at(ipv6, "conf/all/hop_limit", b"77")

    handler.on_add = write
    before = sysctl("ipv4/conf/all/arp_notify"), sysctl("ipv6/conf/all/hop_limit")
    assert (await shim.run("ADD", attachment(netns)))[0] == 0
    found: list[str] = []
    inside = ["ipv4/conf/pod0/arp_filter", "ipv4/conf/late0/arp_filter", "ipv4/conf/all/arp_notify"]
    inside += ["ipv6/conf/pod0/hop_limit", "ipv6/conf/all/hop_limit"]
    fd = os.open(netns, os.O_RDONLY)
    enter(fd, lambda: found.extend(sysctl(path) for path in inside))
    os.close(fd)
    assert found == ["1", "1", "1", "77", "77"]
    assert (sysctl("ipv4/conf/all/arp_notify"), sysctl("ipv6/conf/all/hop_limit")) == before == ("0", "64")


def test_why_not_one_folder_for_both_families(netns: Path) -> None:
    """/proc/sys/net resolves what is below it where its user is, not where it was opened."""
    folders: dict[str, int] = {}
    fd = os.open(netns, os.O_RDONLY)

    def inside() -> None:
        Path("/proc/sys/net/ipv4/conf/all/arp_notify").write_text("1")
        folders.update({name: os.open(f"/proc/sys/{name}", os.O_RDONLY) for name in ("net", "net/ipv4")})

    enter(fd, inside)
    for name, path, value in (
        ("net", "ipv4/conf/all/arp_notify", b"0\n"),
        ("net/ipv4", "conf/all/arp_notify", b"1\n"),
    ):
        opened = os.open(path, os.O_RDONLY, dir_fd=folders[name])
        assert os.read(opened, 8) == value
        os.close(opened)
    for opened in (fd, *folders.values()):
        os.close(opened)


UNPRIVILEGED = """
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([]); os.setgid(65534); os.setuid(65534)
only = 1 << 12  # CAP_NET_ADMIN
assert libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", only, only, 0, 0, 0, 0)) == 0
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
for folder, path in ((sys.argv[1], "conf/all/arp_notify"), (sys.argv[2], "conf/all/hop_limit")):
    os.write(os.open(path, os.O_WRONLY, dir_fd=int(folder)), b"1")
netlink = socket.socket(fileno=int(sys.argv[3]))
netlink.send(struct.pack("=IHHIIBxHiII", 32, 16, 5, 1, 0, 0, 0, 1, 1, 1))  # set lo up
print(struct.unpack_from("=i", netlink.recv(4096), 16)[0])
"""


@pytest.mark.skipif(
    Path("/proc/self/uid_map").read_text().split()[2] == "1", reason="this user namespace maps one user only"
)
def test_another_user_with_net_admin_alone_can_use_them(netns: Path) -> None:
    """All of the agent's privileges: uid 65534, one capability, no_new_privs."""
    opened: list[int] = []
    fd = os.open(netns, os.O_RDONLY)

    def inside() -> None:
        opened.extend(os.open(f"/proc/sys/net/{name}", os.O_RDONLY) for name in ("ipv4", "ipv6"))
        opened.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach())

    enter(fd, inside)
    command = ["/usr/bin/env", "python3", "-I", "-S", "-c", UNPRIVILEGED, *map(str, opened)]
    done = subprocess.run(command, pass_fds=opened, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
    found: list[str] = []
    enter(
        fd,
        lambda: found.extend(
            sysctl(path) for path in ("ipv4/conf/all/arp_notify", "ipv6/conf/all/hop_limit")
        ),
    )
    assert found == ["1", "1"]
    for descriptor in (fd, *opened):
        os.close(descriptor)


def sysctl(path: str) -> str:
    return Path(f"/proc/sys/net/{path}").read_text().strip()


async def test_no_namespace_no_add(shim: Shim, server: Server, handler: Recorder, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in {
        tmp_path / "nothing": "No such file or directory",
        Path(__file__): "cannot enter network namespace",
        tmp_path: "cannot enter network namespace",
        fifo: "cannot enter network namespace",
        Path("/proc/self/ns/mnt"): "cannot enter network namespace",
        Path("/proc/self/ns/net"): "is the network namespace of the host",
    }.items():
        for command in ("ADD", "CHECK"):
            code, text = await shim.refused(command, attachment(path))
            assert code == 8
            assert str(path) in text
            assert reason in text
        assert await shim.run("DEL", attachment(path)) == (0, b"", b"")
    assert set(handler.names) == {"delete"}
    assert {r.descriptors for _, r in handler.calls} == {None}


async def test_del_without_a_namespace(shim: Shim, server: Server, handler: Recorder) -> None:
    assert await shim.run("DEL", {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}) == (0, b"", b"")
    assert await shim.run("DEL", attachment("")) == (0, b"", b"")
    assert handler.names == ["delete", "delete"]


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
async def test_the_hosts_namespace_if_the_caller_insists(
    shim: Shim, server: Server, handler: Recorder, value: str
) -> None:
    env = attachment("/proc/self/ns/net") | {"CNI_NETNS_OVERRIDE": value}
    assert (await shim.run("ADD", env))[0] == 0


async def test_descriptors_are_closed_when_the_call_ends(
    shim: Shim, server: Server, handler: Recorder, netns: Path
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await shim.run("ADD", attachment(netns))
    before = descriptors()
    for command in ("ADD", "CHECK", "DEL", "GC", "STATUS", "ADD"):
        await shim.run(command, attachment(netns))
        await shim.run(command, attachment(netns), b"not JSON")
    await true(lambda: descriptors() <= before)


def test_closing_closes_everything() -> None:
    pairs = [os.pipe() for _ in range(2)]
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    pod = PodDescriptors(pairs[0][0], sock, {"net/ipv4": pairs[0][1], "net/ipv6": pairs[1][0]})
    pod.close()
    assert sock.fileno() == -1
    for fd in (*pairs[0], pairs[1][0]):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.close(pairs[1][1])
