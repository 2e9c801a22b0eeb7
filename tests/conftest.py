"""The whole test run lives in a network namespace of its own: nothing it does reaches the machine's network.

An ordinary user gets a user namespace as well (mapped to uid 0 inside). Both are entered before any thread
exists, by the test process itself, so that plain ``pytest`` is all a developer needs.
"""

import asyncio
import ctypes
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, and no verdict on what is tested.
_IGNORED = (HealthCheck.too_slow, HealthCheck.data_too_large)
# The suite draws the same examples every time: its verdict is about the code and not about luck. Others are
# drawn with --hypothesis-profile=explore.
settings.register_profile("towpath", deadline=None, suppress_health_check=_IGNORED, derandomize=True)
settings.register_profile("explore", deadline=None, suppress_health_check=_IGNORED)
settings.load_profile("towpath")

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWUSER if uid != 0 else 0)
    if libc.unshare(flags) != 0:
        raise pytest.UsageError(
            f"cannot create namespaces ({os.strerror(ctypes.get_errno())}): "
            "allow unprivileged user namespaces (sysctl user.max_user_namespaces) or run as root"
        )
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
    # Reference plugins keep files in /run, which an ordinary user may not write and root should not.
    libc.mount(b"none", b"/run", b"tmpfs", 0, None)
    os.system("ip link set lo up")


def pytest_configure(config: pytest.Config) -> None:
    """Enter the namespaces once, before collection. nft, tc and bridge are not on an ordinary PATH."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    # A shell's background job begins with it ignored, and so would every program that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Otherwise pytest-asyncio, asking for the current loop on Python < 3.14, makes one nobody closes, and
    # the ResourceWarning fails whichever test the collector happens to run in.
    asyncio.set_event_loop(None)
    if os.environ.get("TOWPATH_TEST_NETNS") != str(os.getpid()):
        _unshare()
        os.environ["TOWPATH_TEST_NETNS"] = str(os.getpid())
