"""host-local's files, in every form Canal has had them."""

import fcntl
import os
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.ipam.host_local import (
    HostLocalBusy,
    HostLocalFolder,
    HostLocalLease,
    HostLocalTree,
    parse_tree,
)

HOST_LOCAL = Path("/usr/lib/cni/host-local")
CONFIG = (
    '{"cniVersion":"0.3.1","name":"k8s-pod-network","type":"calico","ipam":{"type":"host-local","dataDir":"%s",'
    '"ranges":[[{"subnet":"10.42.1.0/24"}],[{"subnet":"fd00:10:42:1::/64"}]]}}'
)


def call(command: str, folder: Path, container: str) -> str:
    """The real host-local, as Calico's plugin executes it."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": "/proc/self/ns/net",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    return subprocess.run(
        [HOST_LOCAL], input=CONFIG % folder, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_files_of_every_age() -> None:
    files = {
        "10.42.1.2": b"abc\r\neth0",
        "10.42.1.3": b"def\neth0\n",
        "10.42.1.4": b"old",
        "fd00:10:42:1::2": b"abc\r\neth0",
        "last_reserved_ip.0": b"10.42.1.4",
        "last_reserved_ip.1": b"fd00:10:42:1::2\n",
        "lock": b"",
    }
    tree = parse_tree(files)
    assert [(str(one.address), one.container_id, one.ifname) for one in tree.leases] == [
        ("10.42.1.2", "abc", "eth0"),
        ("10.42.1.3", "def", "eth0"),
        ("10.42.1.4", "old", ""),
        ("fd00:10:42:1::2", "abc", "eth0"),
    ]
    assert tree.last == {0: ip_address("10.42.1.4"), 1: ip_address("fd00:10:42:1::2")}
    assert not tree.strange


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=5))
def test_any_file_is_a_lease_or_strange_and_never_an_error(files: dict[str, bytes]) -> None:
    tree = parse_tree(files)
    told = {str(lease.address) for lease in tree.leases} | set(tree.strange)
    assert len(told) <= len(files)


ids = st.text("0123456789abcdef", min_size=12, max_size=64)
leases = st.builds(
    HostLocalLease,
    address=st.ip_addresses(),
    container_id=ids,
    ifname=st.sampled_from(["", "eth0", "net1"]),  # without: from before host-local 0.8
)
trees = st.builds(
    HostLocalTree,
    leases=st.lists(leases, max_size=6, unique_by=lambda one: one.address).map(
        lambda found: tuple(sorted(found, key=lambda one: str(one.address)))
    ),
    last=st.dictionaries(st.integers(0, 3), st.ip_addresses(), max_size=3),
)


@given(tree=trees)
def test_what_is_written_is_what_is_read(tree: HostLocalTree) -> None:
    with TemporaryDirectory(dir="/dev/shm") as path:
        folder = HostLocalFolder(Path(path) / "net")
        assert folder.read() == HostLocalTree()  # there is no such folder
        with folder.locked():
            for lease in tree.leases:
                folder.write(lease)
            for number, address in tree.last.items():
                folder.set_last(number, address)
        assert folder.read() == tree
        with folder.locked():
            for lease in tree.leases:
                folder.remove(lease.address)
        assert folder.read() == HostLocalTree(last=tree.last)


@given(lease=leases, data=st.data())
def test_a_truncated_file_keeps_its_address_from_being_forgotten(
    lease: HostLocalLease, data: st.DataObject
) -> None:
    """It names its owner, or the beginning of its name, or is told as strange; never another's."""
    content = lease.content()
    cut = data.draw(st.integers(0, len(content)))
    tree = parse_tree({str(lease.address): content[:cut], "host-local.bak": b"x", "10.0.0": content})
    told = {str(one.address): one for one in tree.leases}
    assert {"host-local.bak", "10.0.0"} <= set(tree.strange)
    if found := told.get(str(lease.address)):
        assert lease.container_id.startswith(found.container_id) and lease.ifname.startswith(found.ifname)
    else:
        assert str(lease.address) in tree.strange and cut == 0


def test_garbage_is_named() -> None:
    files = {"10.42.1.300": b"x", "last_reserved_ip.x": b"1", "10.42.1.5": b"", "10.42.1.6": b"two words"}
    assert set(parse_tree(files).strange) == set(files)


@pytest.mark.clients
@pytest.mark.skipif(not HOST_LOCAL.exists(), reason="Debian's containernetworking-plugins is missing")
def test_the_real_host_local_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    call("ADD", tmp_path, "a" * 64)
    folder = HostLocalFolder(tmp_path / "k8s-pod-network")
    theirs = folder.read()
    assert {(str(one.address), one.container_id, one.ifname) for one in theirs.leases} == {
        ("10.42.1.2", "a" * 64, "eth0"),
        ("fd00:10:42:1::2", "a" * 64, "eth0"),
    }
    with folder.locked():
        for text in ("10.42.1.3", "fd00:10:42:1::3"):
            folder.write(HostLocalLease(address=ip_address(text), container_id="b" * 64, ifname="eth0"))
        folder.set_last(0, ip_address("10.42.1.9"))
    assert '"10.42.1.10/24"' in call("ADD", tmp_path, "c" * 64)
    call("DEL", tmp_path, "b" * 64)
    assert {one.container_id[0] for one in folder.read().leases} == {"a", "c"}
    shutil.rmtree(tmp_path / "k8s-pod-network")
    assert not folder.read().leases


def test_the_lock_is_the_one_that_host_local_takes(tmp_path: Path) -> None:
    folder = HostLocalFolder(tmp_path / "net")
    with folder.locked():
        descriptor = os.open(tmp_path / "net/lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(HostLocalBusy), folder.locked(patience=0.05):
            pass
        os.close(descriptor)


def test_what_a_killed_export_left_is_nobodys_lease(tmp_path: Path) -> None:
    folder = HostLocalFolder(tmp_path)
    (tmp_path / ".10.42.1.2.partial").write_bytes(b"half")
    assert folder.read() == parse_tree({})
