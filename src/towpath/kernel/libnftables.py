"""The distribution's libnftables.so.1 through ctypes: text in, text or JSON out (docs/adr/0001)."""

import ctypes
import errno
import os
import re
import socket
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from towpath.kernel.port import KernelRefused

STATELESS, HANDLES, JSON, NUMERIC_PROTO, TERSE = 1 << 2, 1 << 3, 1 << 4, 1 << 7, 1 << 11

_NETLINK_NETFILTER = 12

# libnftables tells errors in words only: the C library's for the kernel's, its own for what it finds itself.
_ERRNOS = {
    os.strerror(number): number
    for number in (
        errno.EPERM,
        errno.ENOENT,
        errno.EEXIST,
        errno.EBUSY,
        errno.EINVAL,
        errno.EMSGSIZE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENFILE,
        errno.EMFILE,
        errno.EMLINK,
        errno.ENOSPC,
        errno.EOPNOTSUPP,
        errno.EAFNOSUPPORT,
        errno.ELOOP,
    )
} | {"element does not exist": errno.ENOENT, "interval overlaps": errno.EEXIST}


# Which socket a new context has opened is told by looking before and after.
_OPENING = threading.Lock()


class NftError(Exception):
    """A transaction, or listing, that was not carried out. Nothing of it is in force.

    ``reason`` in nft's words; ``command`` the one it complained about, empty if it named none; ``errno`` 0
    where it had no number.
    """

    def __init__(self, reason: str, command: str, errno: int) -> None:
        super().__init__(f"{reason}: {command}" if command else reason)
        self.reason, self.command, self.errno = reason, command, errno


def _netfilter_sockets() -> set[int]:
    """This process' sockets of netfilter netlink."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as one:
                if one.family == socket.AF_NETLINK and one.proto == _NETLINK_NETFILTER:
                    found.add(int(entry.name))
        except OSError:  # the listing's own descriptor
            continue
    return found


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise KernelRefused(
            "load libnftables.so.1",
            errno.ENOENT,
            "nftables' library is not installed",
            "install libnftables1",
        ) from error
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("free", "buffer_output", "buffer_error", "get_output_buffer", "get_error_buffer"):
        getattr(lib, f"nft_ctx_{name}").argtypes = [ctypes.c_void_p]
    lib.nft_ctx_free.restype = None
    for name in ("get_output_buffer", "get_error_buffer"):
        getattr(lib, f"nft_ctx_{name}").restype = ctypes.c_char_p
    return lib


class NftContext:
    """A libnftables context. It speaks of the namespace the calling thread was in when it was made, or of
    that in which ``handed`` was opened: a socket of nftables, of which it keeps a copy.

    Calls from several threads take turns. Raises KernelRefused if the library is missing.
    """

    def __init__(self, handed: socket.socket | None = None) -> None:
        self._lib = _library()
        with _OPENING:
            before = _netfilter_sockets()
            self._ctx = self._lib.nft_ctx_new(0)
            opened = _netfilter_sockets() - before
        if not self._ctx:
            raise KernelRefused("open nftables", 0, "libnftables could not make a context")
        self.descriptor = opened.pop() if len(opened) == 1 else -1
        """The socket the library talks to the kernel by; -1 if it cannot be told. It is the library's."""
        if handed is not None:
            self._exchange(handed)
        self._lock = threading.Lock()
        self._lib.nft_ctx_buffer_output(self._ctx)
        self._lib.nft_ctx_buffer_error(self._ctx)

    def _exchange(self, handed: socket.socket) -> None:
        """Have the library use another socket: it keeps to the one it opens first, and this takes its place.

        What speaks of the wrong namespace is not to be used at all.
        """
        if self.descriptor < 0:
            self._lib.nft_ctx_free(self._ctx)
            raise KernelRefused("open nftables", 0, "which socket libnftables uses cannot be told")
        handed.setblocking(False)  # as the library has its own
        os.dup2(handed.fileno(), self.descriptor, inheritable=False)

    def run(self, *commands: str, flags: int = 0) -> bytes:
        """Execute ``commands`` as one transaction and return what they printed. Raises NftError.

        They go as one line: of a script nft shows the first line with an error, whichever it is about.
        """
        script = ";".join(commands)
        with self._lock:
            if not self._ctx:
                raise NftError("the nftables context is closed", "", errno.EBADF)
            self._lib.nft_ctx_output_set_flags(self._ctx, flags)
            status = self._lib.nft_run_cmd_from_buffer(self._ctx, script.encode())
            output: bytes = self._lib.nft_ctx_get_output_buffer(self._ctx)
            errors: bytes = self._lib.nft_ctx_get_error_buffer(self._ctx)
        if status != 0:
            raise _error(errors.decode(errors="replace"), commands)
        return output

    def close(self) -> None:
        """Free the context; any later call fails."""
        with self._lock:
            if self._ctx:
                self._lib.nft_ctx_free(self._ctx)
            self._ctx = None


def _error(text: str, commands: Sequence[str]) -> NftError:
    """The first complaint: ``Error: REASON``, the script, and a line that underlines part of it."""
    lines = text.split("\n")
    reason = re.sub(r"^.*?Error: (Could not process rule: )?", "", lines[0]).strip() or "no reason given"
    number = next((n for words, n in _ERRNOS.items() if words in reason), 0)
    place = lines[2].find("^") if len(lines) > 2 else -1
    for command in commands:
        if 0 <= place <= len(command):
            return NftError(reason, command, number)
        place -= len(command) + 1
    return NftError(reason, "", number)
