"""Sysctls of one network namespace, through descriptors of its folders.

What lies below an open /proc/sys/net is looked up in the namespace of whoever asks, so that descriptor would
reach the agent's own settings; what lies below an open /proc/sys/net/ipv4 or ipv6 belongs to the namespace it
was opened in (tried on 6.18 with another process in another namespace).
"""

import os
from collections.abc import Iterable, Mapping
from errno import EACCES, EINVAL, EROFS
from pathlib import Path

# /proc/sys is read-only in a container: the DaemonSet mounts the host network's part of it here, writable.
_ROOT = "/host/proc/sys" if Path("/host/proc/sys/net").is_dir() else "/proc/sys"
_FOLDERS = ("net/ipv4/", "net/ipv6/", "net/netfilter/")
_HINTS = {
    EROFS: "/proc/sys is mounted read-only here: mount /proc/sys/net writable",
    EACCES: "changing network sysctls needs NET_ADMIN in the namespace's own user namespace",
}


class Sysctls:
    """Reads and writes below /proc/sys; ``net/ipv4``, ``net/ipv6`` and ``net/netfilter`` by descriptor."""

    def __init__(self, folders: dict[str, int], *, owned: bool, elsewhere: bool) -> None:
        """``elsewhere``: other paths are opened by name, in the namespace of whoever asks."""
        self._folders, self._owned, self._elsewhere = folders, owned, elsewhere

    @classmethod
    def here(cls) -> "Sysctls":
        """Those of the calling thread's namespace."""
        folders: dict[str, int] = {}
        for folder in _FOLDERS:
            try:
                folders[folder] = os.open(f"{_ROOT}/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:  # a kernel without IPv6 or conntrack: its sysctls do not exist
                continue
        return cls(folders, owned=True, elsewhere=True)

    @classmethod
    def handed(cls, ipv4: int | None, ipv6: int | None) -> "Sysctls":
        """Those behind two descriptors the caller keeps; anything else does not exist."""
        given = {"net/ipv4/": ipv4, "net/ipv6/": ipv6}
        return cls({k: v for k, v in given.items() if v is not None}, owned=False, elsewhere=False)

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Values of those of ``paths`` that exist and can be read, white space collapsed to one blank."""
        found: dict[str, str] = {}
        for path in paths:
            try:
                fd = self._open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                found[path] = _value(os.read(fd, 4096))
            except OSError:
                continue
            finally:
                os.close(fd)
        return found

    def write(self, path: str, value: str) -> None:
        """Raises OSError, with ENOENT for one that does not exist.

        But where the kernel has no IPv6 at all (ipv6.disable=1) its settings guard nothing and are not made.
        """
        if self._elsewhere and path.startswith("net/ipv6/") and "net/ipv6/" not in self._folders:
            return
        fd = self._open(path, os.O_WRONLY)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def open(self, path: str) -> int:
        """A descriptor to read ``path`` by, which the caller closes. Raises OSError."""
        return self._open(path, os.O_RDONLY)

    def close(self) -> None:
        """Close what ``here`` opened."""
        if self._owned:
            for fd in self._folders.values():
                os.close(fd)
        self._folders = {}

    def _open(self, path: str, flags: int) -> int:
        if ".." in path.split("/"):
            raise OSError(EINVAL, "a sysctl's path cannot go up")
        for folder, fd in self._folders.items():
            if path.startswith(folder):
                return os.open(path[len(folder) :], flags | os.O_CLOEXEC, dir_fd=fd)
        if not self._elsewhere:
            raise FileNotFoundError(2, "no handle of this sysctl's folder")
        return os.open(f"{_ROOT}/{path}", flags | os.O_CLOEXEC)


class KeptOpen:
    """Settings that are read again and again: each stays open, and reading it is one call of 0.7 us, not 7.

    At most ``most`` are kept open; what is beyond that, or was not there before, is opened for each look.
    """

    def __init__(self, sysctls: Sysctls, most: int) -> None:
        self._sysctls, self._most = sysctls, most
        self._open: dict[str, int] = {}

    def others(self, wanted: Mapping[str, str]) -> list[str]:
        """Those of ``wanted`` that exist and have another value."""
        for path in [path for path in self._open if path not in wanted]:
            os.close(self._open.pop(path))
        return [path for path, value in wanted.items() if self._read(path) not in (value, None)]

    def close(self) -> None:
        """Keep none open."""
        for fd in self._open.values():
            os.close(fd)
        self._open = {}

    def _read(self, path: str) -> str | None:
        fd = self._open.get(path)
        if fd is not None:
            try:
                return _value(os.pread(fd, 4096, 0))
            except OSError:  # its device is gone; one of that name has settings of its own
                os.close(self._open.pop(path))
        if len(self._open) >= self._most:
            return self._sysctls.read((path,)).get(path)
        try:
            fd = self._sysctls.open(path)
        except OSError:
            return None
        try:
            value = _value(os.pread(fd, 4096, 0))
        except OSError:
            os.close(fd)
            return None
        self._open[path] = fd
        return value


def _value(raw: bytes) -> str:
    """White space collapsed to one blank."""
    return " ".join(raw.decode(errors="replace").split())


def hint(errno: int) -> str:
    """What an operator can do about a write that failed."""
    return _HINTS.get(errno, "")
