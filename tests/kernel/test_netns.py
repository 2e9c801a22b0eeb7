"""Namespaces as descriptors."""

import os
import threading
from pathlib import Path

import pytest

from towpath.kernel.netns import current_netns, new_netns, run_in

pytestmark = pytest.mark.kernel

DEVICES = Path("/proc/thread-self/net/dev_snmp6")


def identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def test_a_new_namespace_is_another_one_and_empty() -> None:
    mine, new = current_netns(), new_netns()
    assert identity(mine) != identity(new)
    inside = run_in(new, current_netns)
    assert identity(inside) == identity(new)
    assert run_in(new, lambda: [p.name for p in DEVICES.iterdir()]) == ["lo"]
    for fd in (mine, new, inside):
        os.close(fd)


def test_the_calling_thread_never_moves_and_the_other_is_never_used_again() -> None:
    before, new = current_netns(), new_netns()
    threads = {run_in(new, threading.current_thread) for _ in range(3)}
    after = current_netns()
    assert identity(before) == identity(after)
    assert not any(thread.is_alive() for thread in threads)
    for fd in (before, new, after):
        os.close(fd)


def test_errors_come_back() -> None:
    new = new_netns()
    with pytest.raises(ZeroDivisionError):
        run_in(new, lambda: 1 // 0)
    os.close(new)
    with pytest.raises(OSError, match="setns"):
        run_in(new, lambda: None)
