"""The lease store against a real file system: durability, damage, full disks, and never one address twice."""

import asyncio
import ctypes
import shutil
import sqlite3
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from towpath.ipam import writer
from towpath.ipam.allocate import RangeSet, make_range
from towpath.ipam.codec import decode, encode
from towpath.ipam.errors import AddressUnavailable, AlreadyLeased, LeaseStoreError, RangeExhausted
from towpath.ipam.store import LeaseStore
from towpath.ipam.writer import Writer
from towpath.model.attachment import Attachment, Bandwidth, PodRef, PortMapping
from towpath.model.net import Addr

BOOT = "11111111-1111-1111-1111-111111111111"
SETS: tuple[RangeSet, ...] = (
    (make_range(ip_network("10.42.0.0/28")),),
    (make_range(ip_network("fd00:42::/64")),),
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attachment(container_id: str, addresses: tuple[Addr, ...], ifname: str = "eth0") -> Attachment:
    return Attachment(
        container_id=container_id,
        ifname=ifname,
        network="k8s-pod-network",
        netns=f"/run/netns/{container_id}",
        host_ifname="cali0123456789a",
        addresses=addresses,
        mac="02:00:00:00:00:01",
        mtu=1450,
        boot_id=BOOT,
    )


async def lease(
    store: LeaseStore, container_id: str, *requested: str, sets: tuple[RangeSet, ...] = SETS
) -> Attachment:
    choices = store.choose(sets, [ip_address(a) for a in requested], lambda a: False)
    att = attachment(container_id, tuple(c.address for c in choices))
    await store.add(att, choices)
    return att


def opened(path: Path, clock: Clock, boot_id: str = BOOT) -> LeaseStore:
    store = LeaseStore(path, boot_id=boot_id, clock=clock)
    store.open()
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[LeaseStore]:
    store = opened(tmp_path / "leases.db", clock)
    yield store
    store.close()


def test_codec_keeps_everything() -> None:
    att = Attachment(
        container_id="c1",
        ifname="eth0",
        network="net",
        netns="/proc/1/ns/net",
        host_ifname="cali1",
        addresses=(ip_address("10.0.0.2"), ip_address("fd00::2")),
        mac="02:00:00:00:00:01",
        mtu=1450,
        boot_id=BOOT,
        request_id="ff",
        pod=PodRef(namespace="default", name="a", uid="u"),
        ports=(
            PortMapping(host_port=8080, container_port=80, host_ip=ip_address("127.0.0.1")),
            PortMapping(host_port=53, container_port=53, protocol="udp"),
        ),
        bandwidth=Bandwidth(ingress_rate=1, egress_burst=2),
        routes=(ip_network("10.0.0.0/8"),),
        aliases=("db",),
    )
    assert decode(encode(att)) == att
    assert decode(encode(att)[:-1] + b',"of_a_newer_version":1}') == att
    with pytest.raises(msgspec.MsgspecError):
        decode(b"{}")


async def test_leases_survive_a_restart(store: LeaseStore, tmp_path: Path, clock: Clock) -> None:
    first = await lease(store, "a")
    assert [str(a) for a in first.addresses] == ["10.42.0.2", "fd00:42::2"]
    await lease(store, "b")
    await store.release("b", "eth0")
    store.close()
    again = opened(tmp_path / "leases.db", clock)
    assert again.attachments() == (first,)
    third = await lease(again, "c")
    assert [str(a) for a in third.addresses] == ["10.42.0.4", "fd00:42::4"]
    again.close()


async def test_a_released_address_is_kept_back_while_others_are_free(store: LeaseStore, clock: Clock) -> None:
    sets = SETS[:1]
    for n in range(2, 15):
        if n != 14:
            await lease(store, f"c{n}", sets=sets)
    await store.release("c5", "eth0")
    clock.now += 1
    assert str((await lease(store, "x", sets=sets)).addresses[0]) == "10.42.0.14"
    assert str((await lease(store, "y", sets=sets)).addresses[0]) == "10.42.0.5"  # nothing else is left
    with pytest.raises(RangeExhausted, match="13 of 13 are leased"):
        await lease(store, "z", sets=sets)
    await store.release("c9", "eth0")
    await store.release("c7", "eth0")
    clock.now += 61
    assert str((await lease(store, "z", sets=sets)).addresses[0]) == "10.42.0.7"  # round robin, no hold


async def test_the_hold_survives_a_restart_and_ends_with_the_boot(tmp_path: Path, clock: Clock) -> None:
    store = opened(tmp_path / "leases.db", clock)
    sets = ((make_range(ip_network("10.42.0.0/29")),),)
    for n in range(5):
        await lease(store, f"c{n}", sets=sets)
    await store.release("c0", "eth0")
    clock.now += 1
    await store.release("c3", "eth0")
    store.close()
    store = opened(tmp_path / "leases.db", clock)
    assert str((await lease(store, "x", sets=sets)).addresses[0]) == "10.42.0.2"  # the longest free
    await store.release("x", "eth0")
    store.close()
    store = opened(tmp_path / "leases.db", clock, boot_id="another boot")
    assert str((await lease(store, "y", sets=sets)).addresses[0]) == "10.42.0.5"  # nothing is held back
    store.close()


async def test_requested_addresses(store: LeaseStore) -> None:
    att = await lease(store, "a", "10.42.0.9")
    assert [str(a) for a in att.addresses] == ["10.42.0.9", "fd00:42::2"]
    with pytest.raises(AddressUnavailable, match=r"container a \(eth0\) has it"):
        await lease(store, "b", "10.42.0.9")
    with pytest.raises(AddressUnavailable, match="a route of this node leads to it"):
        store.choose(SETS, [ip_address("10.42.0.10")], lambda a: True)
    assert str((await lease(store, "b")).addresses[0]) == "10.42.0.2"  # a wish does not move the round robin


async def test_addresses_the_kernel_knows_are_passed_over(store: LeaseStore) -> None:
    foreign = {ip_address("10.42.0.2"), ip_address("10.42.0.3")}
    choices = store.choose(SETS, [], foreign.__contains__)
    assert str(choices[0].address) == "10.42.0.4"


async def test_one_interface_one_lease(store: LeaseStore) -> None:
    await lease(store, "a")
    with pytest.raises(AlreadyLeased, match="container a has a lease for eth0 already"):
        await lease(store, "a")
    await store.release("a", "eth0")
    await store.release("a", "eth0")
    await store.release("never", "eth0")
    await lease(store, "a")


@pytest.mark.parametrize("quick", [1.0, 0.0], ids=["on the spot", "in the thread"])
async def test_a_hundred_at_once_share_synchronisations(
    store: LeaseStore, quick: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    monkeypatch.setattr(writer, "_QUICK", quick)
    execute = Writer._execute

    def counted(self: Writer, jobs: list[Any]) -> sqlite3.Error | None:
        commits.append(len(jobs))
        return execute(self, jobs)

    monkeypatch.setattr(Writer, "_execute", counted)
    await lease(store, "before")
    await store.release("before", "eth0")
    sets = ((make_range(ip_network("10.42.0.0/24")),),)
    atts = await asyncio.gather(*(lease(store, f"c{n}", sets=sets) for n in range(100)))
    assert len({a.addresses for a in atts}) == 100
    await asyncio.gather(*(store.release(f"c{n}", "eth0") for n in range(100)))
    assert store.leased() == {}
    assert commits == [1, 1, 100, 100]


async def test_a_bad_job_does_not_fail_its_neighbours(store: LeaseStore, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "leases.db") as db:
        db.execute("INSERT INTO leases VALUES ('10.42.0.3', 'behind our back', 'eth0')")
    db.close()
    outcomes = await asyncio.gather(*(lease(store, f"c{n}") for n in range(3)), return_exceptions=True)
    assert [isinstance(o, LeaseStoreError) for o in outcomes] == [False, True, False]
    assert {a.container_id for a in store.attachments()} == {"c0", "c2"}


async def test_a_caller_that_is_cancelled_leaves_memory_and_file_agreed(
    store: LeaseStore, tmp_path: Path
) -> None:
    task = asyncio.create_task(lease(store, "a"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await lease(store, "b")  # the writer is in order: the first is decided by now
    with sqlite3.connect(tmp_path / "leases.db") as db:
        rows = {row[0] for row in db.execute("SELECT container_id FROM attachments")}
    db.close()
    assert rows == {a.container_id for a in store.attachments()}


async def test_the_file_is_the_last_word(store: LeaseStore, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "leases.db") as db:
        db.execute("INSERT INTO leases VALUES ('10.42.0.2', 'behind our back', 'eth0')")
    db.close()
    with pytest.raises(LeaseStoreError, match="UNIQUE"):
        await lease(store, "a")
    assert store.attachments() == () and store.leased() == {}


def test_two_processes_do_not_share_a_store(store: LeaseStore, tmp_path: Path, clock: Clock) -> None:
    second = LeaseStore(tmp_path / "leases.db", boot_id=BOOT, clock=clock)
    with pytest.raises(LeaseStoreError, match="another process has it open"):
        second.open(patience=0.05)


def test_a_file_that_is_no_database(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "leases.db"
    path.write_bytes(b"garbage " * 1000)
    store = LeaseStore(path, boot_id=BOOT, clock=clock)
    with pytest.raises(LeaseStoreError, match=r"not a database.*it is put aside"):
        store.open()
    assert "not a database" in store.problem
    with pytest.raises(LeaseStoreError, match="not a database"):
        store.choose(SETS, [], lambda a: False)
    path.unlink()
    store.open()
    assert store.problem == ""
    store.close()


async def test_a_damaged_page_is_noticed_at_the_start(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "leases.db"
    store = opened(path, clock)
    for n in range(10):
        await lease(store, f"c{n}")
    store.close()
    body = bytearray(path.read_bytes())
    body[4096:-200] = b"\xff" * (len(body) - 4296)
    path.write_bytes(body)
    with pytest.raises(LeaseStoreError, match=r"damaged|malformed"):
        opened(path, clock)


async def test_a_row_that_cannot_be_read_keeps_its_address(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "leases.db"
    store = opened(path, clock)
    att = await lease(store, "a")
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE attachments SET body = 'x'")
    db.close()
    store = opened(path, clock)
    assert store.damaged == (("a", "eth0"),) and store.attachments() == ()
    with pytest.raises(AddressUnavailable):
        await lease(store, "b", str(att.addresses[0]))
    await store.release("a", "eth0")
    assert store.leased() == {}
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "leases.db"
    opened(path, clock).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE schema SET version = 99")
    db.close()
    with pytest.raises(LeaseStoreError, match=r"version 99.*run the newer"):
        opened(path, clock)


async def test_a_full_disk_leases_nothing_and_recovers(tmp_path: Path, clock: Clock) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", str(mount).encode(), b"tmpfs", 0, b"size=512k") == 0
    try:
        store = opened(mount / "leases.db", clock)
        await lease(store, "before")
        ballast = mount / "ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(4096))
        refused = 0
        for n in range(20):  # what the write-ahead log has room for already may still go through
            try:
                await lease(store, f"c{n}", sets=((make_range(ip_network("10.42.0.0/24")),),))
            except LeaseStoreError as error:
                assert "full" in str(error) and error.hint.startswith("free space")
                refused += 1
                assert store.get(f"c{n}", "eth0") is None
        assert refused and "full" in store.problem
        with pytest.raises(LeaseStoreError):
            await store.probe()
        durable = {a.container_id for a in store.attachments()}
        ballast.unlink()
        await store.probe()
        assert store.problem == ""
        store.close()
        again = opened(mount / "leases.db", clock)
        assert {a.container_id for a in again.attachments()} == durable
        again.close()
    finally:
        libc.umount2(str(mount).encode(), 2)


class Leases(RuleBasedStateMachine):
    """Allocate, release, crash: an address never has two owners, and what was promised is there."""

    containers = Bundle("containers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.generation = 0
        self.count = 0
        self.owned: dict[str, tuple[Addr, ...]] = {}
        self.store = opened(self.folder / "0.db", self.clock)

    @rule(target=containers, wish=st.none() | st.integers(0, 15))
    def allocate(self, wish: int | None) -> str:
        self.count += 1
        name = f"c{self.count}"
        requested = [] if wish is None else [f"10.42.0.{wish}"]
        used = {a for addresses in self.owned.values() for a in addresses}
        try:
            att = self.loop.run_until_complete(lease(self.store, name, *requested))
        except RangeExhausted:
            assert len(self.owned) == 13
            return name
        except AddressUnavailable:
            assert wish in (0, 1, 15) or ip_address(requested[0]) in used
            return name
        assert not used & set(att.addresses)
        self.owned[name] = att.addresses
        return name

    @rule(names=st.lists(consumes(containers), min_size=1, max_size=4, unique=True))
    def release(self, names: list[str]) -> None:
        async def together() -> None:
            await asyncio.gather(*(self.store.release(name, "eth0") for name in names))

        self.loop.run_until_complete(together())
        for name in names:
            self.owned.pop(name, None)

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def crash(self) -> None:
        """Go on with what a power cut would have left: the files as they are, no orderly close."""
        self.generation += 1
        before = self.folder / f"{self.generation - 1}.db"
        after = self.folder / f"{self.generation}.db"
        for suffix in ("", "-wal"):
            if (source := before.with_name(before.name + suffix)).exists():
                shutil.copy(source, after.with_name(after.name + suffix))
        self.store.close()
        self.store = opened(after, self.clock)

    @invariant()
    def what_was_promised_is_there(self) -> None:
        assert {a.container_id: a.addresses for a in self.store.attachments()} == self.owned
        flat = [a for addresses in self.owned.values() for a in addresses]
        assert len(flat) == len(set(flat)) and set(flat) == set(self.store.leased())

    def teardown(self) -> None:
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.folder)


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
