"""The shipped seccomp profile, loaded by libseccomp as container runtimes load it: enough, and no more."""

import ctypes
import json
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from test_launcher import PROGRAM, WORK, WORKS

from towpath.image import seccomp

pytestmark = pytest.mark.kernel

SHIPPED = Path(__file__).parents[2] / "manifests/seccomp" / seccomp.NAME
ERRNO, ALLOW = 0x00050000, 0x7FFF0000
OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
EPERM = 1


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def confined(without: Collection[str] = ()) -> Callable[[], None]:
    """What a runtime does last; ``without`` calls that the profile lets through."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    profile: dict[str, Any] = json.loads(SHIPPED.read_text())
    context = ctypes.c_void_p(library.seccomp_init(ERRNO | profile["defaultErrnoRet"]))
    for rule in profile["syscalls"]:
        action = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"]
        given = [Comparison(one["index"], OPERATORS[one["op"]], one["value"], one.get("valueTwo", 0))
                 for one in rule.get("args", ())]  # fmt: skip
        arguments = (Comparison * max(1, len(given)))(*given)
        for name in set(rule["names"]) - set(without):
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:
                refused = library.seccomp_rule_add_array(context, action, number, len(given), arguments)
                assert refused == 0, (name, refused)

    def become() -> None:
        assert library.seccomp_load(context) == 0

    return become


def run(code: str, without: Collection[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "-I", "-c", code],
        preexec_fn=confined(without),
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )


def test_it_is_made_of_the_recorded_list() -> None:
    assert SHIPPED.read_text() == seccomp.text(), "python -m towpath.image.seccomp"


def test_files_threads_and_connections_work_under_it() -> None:
    done = run(WORK)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == WORKS


REFUSED = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def number(*call):
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(*call) == -1 else "done"
def opened(family, kind):
    try:
        socket.socket(family, kind).close()
    except PermissionError:
        return "EPERM"
    return "done"
NET = 0x40000000
arm = os.uname().machine == "aarch64"
unshare, setns, clone, clone3 = (97, 268, 220, 435) if arm else (272, 308, 56, 435)
bpf, mount, ptrace, keyctl = (280, 40, 117, 219) if arm else (321, 165, 101, 250)
print(json.dumps({
    "unshare": number(unshare, NET), "setns": number(setns, 0, 0), "clone": number(clone, NET, 0, 0, 0, 0),
    "clone3": number(clone3, 0, 0), "bpf": number(bpf, 0, 0, 0), "mount": number(mount, 0, 0, 0, 0, 0),
    "ptrace": number(ptrace, 0, 0, 0, 0), "keyctl": number(keyctl, 0, 0, 0, 0, 0),
    "packet": opened(17, socket.SOCK_RAW), "alg": opened(38, socket.SOCK_SEQPACKET),
    "netlink": opened(16, socket.SOCK_RAW), "inet": opened(2, socket.SOCK_STREAM),
}))
"""


def test_what_leads_out_is_refused() -> None:
    done = run(REFUSED)
    assert done.returncode == 0, done.stderr
    wanted = dict.fromkeys(
        ("unshare", "setns", "clone", "bpf", "mount", "ptrace", "keyctl", "packet", "alg"), "EPERM"
    )
    assert json.loads(done.stdout) == {**wanted, "clone3": "ENOSYS", "netlink": "done", "inet": "done"}


# Those that work of an agent's kind ends without, at once and on every architecture; others are tried with
# the launcher's filter. The rest is for other kernels, C libraries, and what goes wrong (shim/syscalls.h).
NEEDED = (
    "openat", "pread64", "pwrite64", "newfstatat", "getdents64", "fcntl", "ioctl", "ftruncate",
    "mprotect", "connect", "setsockopt", "getsockopt", "recvfrom", "epoll_ctl", "futex", "clone", "getrandom",
)  # fmt: skip


@pytest.mark.parametrize("call", NEEDED)
def test_with_one_call_less_the_profile_is_too_tight(call: str) -> None:
    done = run(WORK, without=(call,))
    assert done.returncode != 0
    assert not done.stdout
