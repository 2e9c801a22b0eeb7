"""One capability, CAP_NET_ADMIN, and no way to get another (capabilities(7), prctl(2)).

``drop`` works from root, from root in a user namespace, from root of a container that was given NET_ADMIN,
SETUID and SETGID only, and for a process that was already started as another user with the capability.
It must run before there is a second thread: capabilities belong to threads.
"""

import ctypes
import os
from pathlib import Path

CAP_NET_ADMIN = 12
_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 8, 23, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 28, 38, 47, 4
# uid 0 means nothing to exec and setuid, capabilities are not kept nor raised by other means; all locked.
_NOROOT, _NO_SETUID_FIXUP, _KEEP_CAPS_LOCKED, _NO_AMBIENT_RAISE = 0b11, 0b11 << 2, 1 << 5, 0b11 << 6
_SECUREBITS = _NOROOT | _NO_SETUID_FIXUP | _KEEP_CAPS_LOCKED | _NO_AMBIENT_RAISE


class PrivilegeError(Exception):
    """The process cannot get down to, or does not have, exactly NET_ADMIN. The text says what to change."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop(uid: int | None = None, gid: int | None = None) -> None:
    """Become ``uid``/``gid`` (None: stay who we are) with NET_ADMIN alone, for ever.

    Bounding set and securebits are narrowed where CAP_SETPCAP allows it; without it, no_new_privs alone
    keeps exec from giving anything back. Raises PrivilegeError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not _mask("CapPrm") >> CAP_NET_ADMIN & 1:
        raise PrivilegeError(
            "the agent needs CAP_NET_ADMIN and was started without it: "
            "run as root, or add NET_ADMIN to the container's capabilities"
        )
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise PrivilegeError("privileges must be dropped before threads are started")
    narrowed = libc.prctl(_PR_SET_SECUREBITS, _SECUREBITS, 0, 0, 0) == 0
    if narrowed:
        _narrow_bounding_set(libc)
    elif uid is not None:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    _become(uid, gid)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    data[0].effective = data[0].permitted = 1 << CAP_NET_ADMIN
    _checked(libc.capset(ctypes.byref(header), data), "set capabilities")
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")
    verify()


def verify() -> None:
    """Raises PrivilegeError unless effective and permitted are NET_ADMIN and nothing can be inherited."""
    wanted = {"CapEff": 1 << CAP_NET_ADMIN, "CapPrm": 1 << CAP_NET_ADMIN, "CapInh": 0, "CapAmb": 0}
    for name, mask in wanted.items():
        if (found := _mask(name)) != mask:
            raise PrivilegeError(f"{name} is {found:#x} instead of {mask:#x}")


def _narrow_bounding_set(libc: ctypes.CDLL) -> None:
    for capability in range(64):
        if capability != CAP_NET_ADMIN and libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _checked(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "narrow the bounding set")


def _become(uid: int | None, gid: int | None) -> None:
    try:
        if gid is not None and gid != os.getgid():
            os.setgroups([])
            os.setresgid(gid, gid, gid)
        if uid is not None and uid != os.getuid():
            os.setresuid(uid, uid, uid)
    except OSError as e:
        raise PrivilegeError(
            f"cannot become uid {uid}, gid {gid}: {e.strerror}; start as root, with SETUID and SETGID, "
            "or as that user"
        ) from e


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise PrivilegeError(f"cannot {what}: {os.strerror(ctypes.get_errno())}")


def _mask(name: str) -> int:
    """A capability set of this process from /proc/self/status, as a bit mask."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1], 16)
    return 0
