"""Namespaces, mounts and process control through the C library: what Python 3.11 does not offer.

Every function acts on the calling thread or process and raises OSError. The lab's processes that call them
are single-threaded (unshare(CLONE_NEWUSER) and setns(CLONE_NEWNS) demand it).
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 1, 15, 24, 47
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2); ``fd`` a namespace, or a pidfd with ``flags`` naming which of its namespaces (Linux 5.8)."""
    _check(_libc.setns(fd, flags), "setns")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    args = (source.encode(), target.encode(), fstype.encode() or None, ctypes.c_ulong(flags), data.encode())
    _check(_libc.mount(*args), f"mount {source} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def bind(source: str, target: str) -> None:
    """A recursive bind mount (in a user namespace nothing else is allowed on a tree with locked mounts)."""
    mount(source, target, flags=MS_BIND | MS_REC)


def make_shared() -> None:
    """Have mounts be seen by those who follow, as an operating system's first process does."""
    mount("none", "/", flags=MS_REC | MS_SHARED)


def make_private() -> None:
    """Stop mount events from flowing to or from the namespace this one was copied from."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def make_read_only(path: str) -> None:
    """Everything mounted at and below ``path`` becomes read-only, for this mount namespace alone.

    mount_setattr(2), Linux 5.12; on older kernels the tree stays as it is.
    """
    _set_attributes(path, _MOUNT_ATTR_RDONLY, 0)


def make_writable(path: str) -> None:
    """The reverse, for mounts this user namespace made itself (others are locked)."""
    _set_attributes(path, 0, _MOUNT_ATTR_RDONLY)


def _set_attributes(path: str, set_: int, clear: int) -> None:
    attr = (ctypes.c_uint64 * 4)(set_, clear, 0, 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, ctypes.byref(attr), ctypes.sizeof(attr)
    )
    if result != 0 and ctypes.get_errno() != 38:  # ENOSYS
        _check(result, f"mount_setattr {path}")


def pivot_root(new_root: str) -> None:
    """Make ``new_root`` (a mount point) the root and detach the old one (pivot_root(2), "." "." idiom)."""
    os.chdir(new_root)
    _check(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), f"pivot_root {new_root}")
    umount(".")
    os.chdir("/")


def die_with_parent() -> None:
    """SIGKILL for this process when its parent goes, whatever took the parent (prctl PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl PDEATHSIG")


def set_name(name: str) -> None:
    """The name ``ps`` shows (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def drop_bounding(capabilities: frozenset[int]) -> None:
    """Drop capabilities (by number) from the bounding set; it takes effect at the next execve as uid 0."""
    for number in capabilities:
        _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"drop capability {number}")


def map_current_user(uid: int, gid: int) -> None:
    """In a fresh user namespace: uid and gid of the outside become 0 (the one mapping anybody may make)."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


@contextmanager
def network_namespace(fd: int) -> Iterator[None]:
    """Run the block inside network namespace ``fd``. Only for processes without other threads."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(before, CLONE_NEWNET)
    finally:
        os.close(before)


def new_network_namespace() -> int:
    """A descriptor of a new network namespace, loopback up; the caller stays where it is."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            _loopback_up()
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(before, CLONE_NEWNET)
    finally:
        os.close(before)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
