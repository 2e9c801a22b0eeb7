"""Network namespaces as descriptors. A thread that entered one is thrown away, never used again.

``os.unshare`` and ``os.setns`` came with Python 3.12; the C library's are called through ctypes.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


def new_netns() -> int:
    """A new, empty network namespace; it lives as long as the descriptor or a user of it. Raises OSError."""

    def make() -> int:
        _call("unshare", _CLONE_NEWNET)
        return current_netns()

    return _in_thread(make)


def current_netns() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def run_in(netns: int, function: Callable[[], _T]) -> _T:
    """Call ``function`` in a thread inside ``netns``, and return what it returns or raise what it raises."""

    def enter() -> _T:
        _call("setns", netns, _CLONE_NEWNET)
        return function()

    return _in_thread(enter)


def route_socket_in(netns: int) -> socket.socket:
    """A route netlink socket that speaks of ``netns`` from any thread. Raises OSError."""
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    return run_in(netns, lambda: socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE))


def _call(name: str, *args: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_thread(function: Callable[[], _T]) -> _T:
    results: list[_T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # handed to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
