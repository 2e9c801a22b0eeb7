"""The power fails, or the process is killed, at every single write to the lease store's files.

A child does what an agent does while ``disk_log.c`` logs its writes and synchronisations. From the log every
disk is made that a cut could have left: all that was synchronised, and of what was written since, all (the
process was killed), nothing, or any part, down to torn sectors. Each is opened as the next agent would.
"""

import asyncio
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from attachments import attachment
from towpath.ipam.allocate import make_range
from towpath.ipam.store import LeaseStore

SECTOR = 512
SETS = ((make_range(ip_network("10.42.0.0/27")),),)
SOURCE = Path(__file__).with_name("disk_log.c")
STEPS = 30


class Step(msgspec.Struct, frozen=True):
    """An entry of the log: w(rite), t(runcate), s(ync), d(elete), or a(cknowledged): the child's words."""

    type: str
    path: str
    offset: int
    data: bytes


def child() -> None:
    """Adds and releases, alone and many at once, and the end; tells the log what was promised."""
    folder = Path(os.environ["DISK_LOG_ROOT"])
    log = os.open(os.environ["DISK_LOG"], os.O_WRONLY | os.O_APPEND)
    random_ = random.Random(7)
    store = LeaseStore(folder / "leases.db", boot_id="boot", clock=lambda: 100.0, hold=0.0)

    def tell(words: str) -> None:
        body = words.encode()
        os.write(log, b"a" + struct.pack("<HQI", 0, 0, len(body)) + body)

    async def add(name: str) -> None:
        choices = store.choose(SETS, [], lambda _: False)
        att = attachment(name, *(str(c.address) for c in choices), container_id=name)
        tell(f"adding {name} {att.addresses[0]}")
        await store.add(att, choices)
        tell(f"added {name} {att.addresses[0]}")

    async def work() -> None:
        store.open()
        alive: list[str] = []
        for step in range(STEPS):
            if len(alive) > 20 or (alive and random_.random() < 0.45):
                name = alive.pop(random_.randrange(len(alive)))
                tell(f"releasing {name} -")
                await store.release(name, "eth0")
                tell(f"released {name} -")
            else:
                names = [f"c{step}x{n}" for n in range(random_.choice((1, 1, 1, 4)))]
                await asyncio.gather(*map(add, names))
                alive += names
        store.close()

    asyncio.run(work())


def steps(log: bytes) -> Iterator[Step]:
    at = 0
    while at < len(log):
        kind = chr(log[at])
        length, offset, size = struct.unpack_from("<HQI", log, at + 1)
        begin = at + 15 + length
        path = log[at + 15 : begin].decode().rpartition("/")[2]
        yield Step(kind, path, offset, log[begin : begin + size])
        at = begin + size


class Disk:
    """Files as they are for a process, and what of it is on the disk."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.synced: dict[str, bytes] = {}
        self.since: dict[str, list[Step]] = {}
        self.deleted: set[str] = set()

    def apply(self, step: Step) -> None:
        if step.type == "d":
            self.deleted.add(step.path)
        elif step.path == self.folder:  # names are the folder's content
            for path in self.deleted:
                self.synced.pop(path, None)
                self.since.pop(path, None)
            self.deleted.clear()
        elif step.type == "s":
            self.synced[step.path] = _after(self.synced.get(step.path, b""), self.since.pop(step.path, []))
        else:
            self.since.setdefault(step.path, []).append(step)

    def left(self, keep: float, random_: random.Random) -> dict[str, bytes]:
        """What is there after a cut: of the writes since the last synchronisation each sector by chance."""
        files = dict(self.synced)
        for path, since in self.since.items():
            kept = since if keep == 1 else list(_by_chance(since, keep, random_))
            files[path] = _after(files.get(path, b""), kept)
        return {path: body for path, body in files.items() if not self._is_gone(path, keep, random_)}

    def _is_gone(self, path: str, keep: float, random_: random.Random) -> bool:
        return path in self.deleted and random_.random() < keep


def _after(content: bytes, done: list[Step]) -> bytes:
    body = bytearray(content)
    for step in done:
        if step.type == "t":
            body = body[: step.offset].ljust(step.offset, b"\0")
            continue
        body = body.ljust(step.offset, b"\0")
        body[step.offset : step.offset + len(step.data)] = step.data
    return bytes(body)


def _by_chance(since: list[Step], keep: float, random_: random.Random) -> Iterator[Step]:
    for step in since:
        if step.type == "t":
            yield step
            continue
        for begin in range(0, len(step.data), SECTOR):
            if random_.random() < keep:
                offset, data = step.offset + begin, step.data[begin : begin + SECTOR]
                yield msgspec.structs.replace(step, offset=offset, data=data)


class Promises:
    """What the child was promised so far."""

    def __init__(self) -> None:
        self.surely: dict[str, str] = {}
        self.perhaps: dict[str, str] = {}
        self.unsynced: dict[str, str] = {}
        """Released, but not yet for a disk that loses its power."""

    def heed(self, words: str) -> None:
        what, name, address = words.split(" ")
        match what:
            case "adding":
                self.perhaps[name] = address
            case "added":
                self.surely[name] = self.perhaps.pop(name)
                self.unsynced.clear()  # the log keeps the order
            case "releasing":
                self.perhaps[name] = self.surely.pop(name)
            case _:
                self.unsynced[name] = self.perhaps.pop(name)


def judge(folder: Path, files: dict[str, bytes], promises: Promises, *, killed: bool) -> None:
    for name, body in files.items():
        (folder / name).write_bytes(body)
    store = LeaseStore(folder / "leases.db", boot_id="boot", clock=lambda: 100.0)
    store.open()
    try:
        found = {att.container_id: str(att.addresses[0]) for att in store.attachments()}
        leased = {str(address): owner[0] for address, owner in store.leased().items()}
    finally:
        store.close()
    assert leased == {address: name for name, address in found.items()}, "an address of two, or of nobody"
    assert promises.surely.items() <= found.items(), "an address that was promised is lost"
    allowed = promises.surely | promises.perhaps | ({} if killed else promises.unsynced)
    assert found.items() <= allowed.items(), "an address of somebody who gave it back"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "disk").mkdir()
    library = folder / "disk_log.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "DISK_LOG": str(folder / "log"),
        "DISK_LOG_ROOT": str(folder / "disk"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = [sys.executable, "-c", "from test_lease_power_cut import child; child()"]
    subprocess.run(run, env=environment, check=True, timeout=60)
    return list(steps((folder / "log").read_bytes()))


@pytest.mark.parametrize("keep", [1.0, 0.0, 0.5], ids=["killed", "nothing unsynced", "torn"])
def test_whatever_a_cut_leaves(log: list[Step], keep: float) -> None:
    disk, promises, random_ = Disk("disk"), Promises(), random.Random(11)
    cuts = 0
    began = False
    for step in log:
        if step.type == "a":
            promises.heed(step.data.decode())
            began = True
            continue
        disk.apply(step)
        if not began or step.path.endswith("-shm") or step.type == "d":
            continue
        cuts += 1
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # nothing waits for a disk here
            judge(Path(folder), disk.left(keep, random_), promises, killed=keep == 1)
    assert cuts > 2 * STEPS
    assert not promises.perhaps
