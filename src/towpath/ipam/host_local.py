"""host-local's leases: one file an address, as Canal keeps them below /var/lib/cni/networks/NETWORK.

What containernetworking/plugins ``ipam/host-local/backend/disk`` reads and writes: the file is named after
the address and holds the container's ID and, since 0.8, the interface (``ID\\r\\nIFNAME``); before, the ID
alone. ``last_reserved_ip.N`` is where range set N's round robin stands, and ``lock`` is what every user of
the folder holds by flock(2) meanwhile.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from towpath.model.net import Addr

LOCK = "lock"
_LAST = "last_reserved_ip."
_POLL_SECONDS = 0.01


class HostLocalLease(msgspec.Struct, frozen=True, kw_only=True):
    """An address and its owner. ``ifname`` is empty in files older than host-local 0.8."""

    address: Addr
    container_id: str
    ifname: str = ""

    def content(self) -> bytes:
        """What the file holds."""
        return f"{self.container_id}\r\n{self.ifname}".encode() if self.ifname else self.container_id.encode()


class HostLocalTree(msgspec.Struct, frozen=True, kw_only=True):
    """A network's folder. ``last`` by number of the range set; ``strange`` are files that are neither."""

    leases: tuple[HostLocalLease, ...] = ()
    last: dict[int, Addr] = {}
    strange: tuple[str, ...] = ()


class HostLocalBusy(Exception):
    """Another process has kept the lock for too long."""


def parse_tree(files: Mapping[str, bytes]) -> HostLocalTree:
    """What the files of a folder say, by name. Text that makes no sense is ``strange``, never an error."""
    leases, last, strange = [], {}, []
    for name in sorted(files):
        if name == LOCK or name.startswith("."):
            continue  # a dot: what a killed export left
        text = files[name].decode(errors="replace").strip()
        try:
            if name.startswith(_LAST):
                last[int(name.removeprefix(_LAST))] = ip_address(text)
                continue
            address = ip_address(name)
        except ValueError:
            strange.append(name)
            continue
        container_id, _, ifname = (part.strip() for part in text.partition("\n"))
        if not container_id or " " in container_id:
            strange.append(name)
            continue
        leases.append(HostLocalLease(address=address, container_id=container_id, ifname=ifname))
    return HostLocalTree(leases=tuple(leases), last=last, strange=tuple(strange))


class HostLocalFolder:
    """The folder of one network. All methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self, patience: float = 10.0) -> Iterator[None]:
        """Keep every host-local out meanwhile. Raises HostLocalBusy after ``patience`` seconds."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(descriptor, time.monotonic() + patience)
            yield
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise HostLocalBusy(f"{self.path / LOCK} is held by another process") from None
            time.sleep(_POLL_SECONDS)

    def read(self) -> HostLocalTree:
        """Everything in it; empty where there is no such folder."""
        files: dict[str, bytes] = {}
        with contextlib.suppress(FileNotFoundError):
            for file in self.path.iterdir():
                with contextlib.suppress(FileNotFoundError):  # given back while we looked
                    if file.is_file():
                        files[file.name] = file.read_bytes()
        return parse_tree(files)

    def write(self, lease: HostLocalLease) -> None:
        """Take an address, durably. To be called with the lock held."""
        self._put(str(lease.address), lease.content())

    def set_last(self, number: int, address: Addr) -> None:
        """Where the round robin of range set ``number`` goes on."""
        self._put(f"{_LAST}{number}", str(address).encode())

    def remove(self, address: Addr) -> None:
        """Give an address back. To be called with the lock held."""
        (self.path / str(address)).unlink(missing_ok=True)

    def _put(self, name: str, content: bytes) -> None:
        """Beside and renamed: host-local takes whatever file there is for a lease."""
        partial = self.path / f".{name}.partial"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path / name)
