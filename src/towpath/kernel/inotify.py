"""Hearing of files that come and go in a folder (inotify(7))."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_MASK = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Calls ``changed`` in the event loop when a file in ``folder`` came, went, or was written and closed."""

    def __init__(self, folder: Path, changed: Callable[[], None]) -> None:
        """From now on, for the running loop. Raises OSError: no such folder, no more watches to be had."""
        self._changed = changed
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _last_error("inotify")
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) < 0:
            error = _last_error(str(folder))
            os.close(self._fd)
            raise error
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Hear no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        os.read(self._fd, 1 << 16)  # what it was does not matter
        self._changed()


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
