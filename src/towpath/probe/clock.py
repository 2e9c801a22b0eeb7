"""Monotonic time, and timers that fire at an absolute moment of it with the kernel's own precision.

epoll's time-out has milliseconds and is relative; a timerfd (timerfd_create(2)) has nanoseconds and is
absolute, so that what a loop does between two waits never shifts the timetable. Python has it from 3.13 on.
"""

import ctypes
import os
import time
from contextlib import suppress

CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """A timerfd on CLOCK_MONOTONIC. ``fd`` turns readable when the moment has come. Raises OSError."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._at = 0
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)

    def set(self, at: int) -> None:
        """Fire at ``at`` nanoseconds; a moment that has passed fires at once. Replaces the one set before."""
        if at == self._at:
            return
        self._at = at
        self._spec.value_s, self._spec.value_ns = divmod(max(at, 1), 1_000_000_000)
        _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, self._pointer, None)

    def fired(self) -> None:
        """Take notice: ``fd`` is no longer readable until the next moment has come."""
        self._at = 0
        with suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def realtime_offset() -> int:
    """What to subtract from a CLOCK_REALTIME stamp to have CLOCK_MONOTONIC, in nanoseconds, as of now."""
    return time.time_ns() - time.monotonic_ns()
