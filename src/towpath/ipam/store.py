"""The lease store: who has which address, on the disk before it is used.

Memory mirrors the file, so that questions cost nothing; the file's constraints are the last word. An address
counts as taken from the moment it is promised, before it is durable, and as free only when its release is
written: whatever a crash cuts off, no address has two owners. A release does not wait for the disk: nobody
can get the address before a later lease has, and that puts both there. What a power cut takes of it comes
back as a lease of a former boot, which is garbage.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec

from towpath.ipam import codec
from towpath.ipam.allocate import RangeSet, match_requested, pick, range_key
from towpath.ipam.errors import AddressUnavailable, AlreadyLeased, LeaseStoreError
from towpath.ipam.schema import ASIDE, connect, explain, put_aside
from towpath.ipam.usage import Sample
from towpath.ipam.writer import Statement, Writer
from towpath.model.attachment import Attachment
from towpath.model.net import Addr, Net

_INSERT_ATTACHMENT = "INSERT INTO attachments (container_id, ifname, body) VALUES (?, ?, ?)"
_INSERT_LEASE = "INSERT INTO leases (address, container_id, ifname) VALUES (?, ?, ?)"
_DAY = 24 * 3600.0
_HOLD = "INSERT OR REPLACE INTO released (address, boot_id, at) VALUES (?, ?, ?)"

Key = tuple[str, str]
"""Container ID and interface name."""


class Choice(msgspec.Struct, frozen=True):
    """An address chosen for a set; ``cursor`` is the set's key where the round robin moves on to it."""

    address: Addr
    cursor: str | None


class LeaseStore:
    """Leases and attachments of one node, in SQLite (WAL, synchronous FULL).

    To be used from one event loop. ``boot_id`` stamps what a reboot makes void; ``clock`` tells seconds since
    boot; ``hold`` is how long a released address is kept back while others are free.
    """

    def __init__(self, path: Path, *, boot_id: str, clock: Callable[[], float], hold: float = 60.0) -> None:
        self.path, self.boot_id = path, boot_id
        self.clock, self._hold = clock, hold
        self._writer: Writer | None = None
        self._lock = -1
        self._rows: dict[Key, Attachment] = {}
        self._leased: dict[Addr, Key] = {}
        self._owned: dict[Key, set[Addr]] = {}  # the same by owner
        self._released: dict[Addr, float] = {}
        self._cursors: dict[str, Addr] = {}
        self._past: dict[str, list[Sample]] = {}
        self.problem = "the lease store is not open yet"
        """Why no lease can be had at present, empty while all is well."""
        self.lost = False
        """Whether the file is beyond reading: ``rebuild`` it."""
        self.damaged: tuple[Key, ...] = ()
        """Rows that cannot be read. Their addresses stay leased until DEL."""

    def open(self, patience: float = 2.0) -> None:
        """Open the file and read it. May be called again after a failure. Raises LeaseStoreError.

        Waits up to ``patience`` seconds for a process that is about to leave it.
        """
        if self._writer is not None:
            return
        try:
            db, self._lock = connect(self.path, patience)
            try:
                self._load(db)
            except (sqlite3.Error, ValueError) as error:
                db.close()
                os.close(self._lock)
                cause = error if isinstance(error, sqlite3.Error) else sqlite3.DatabaseError(str(error))
                raise explain("read lease store", self.path, cause) from error
        except LeaseStoreError as error:
            self.problem, self.lost = str(error), error.damaged
            raise
        self._writer = Writer(db)
        self.problem, self.lost = "", False

    def known(self) -> tuple[Attachment, ...] | None:
        """What was read before the file was lost, None if it never was."""
        return tuple(self._rows.values()) if self._writer is not None else None

    def rebuild(self, attachments: Iterable[Attachment]) -> Path:
        """Put the file aside, under the name returned, and make another that holds ``attachments``.

        Raises LeaseStoreError; it may be called again then.
        """
        found = tuple(attachments)
        self.close()
        aside = put_aside(self.path)
        db, lock = connect(self.path, 0)
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                for att in found:
                    key = (att.container_id, att.ifname)
                    db.execute(_INSERT_ATTACHMENT, (*key, codec.encode(att)))
                    db.executemany(_INSERT_LEASE, [(str(a), *key) for a in att.addresses])
        except sqlite3.Error as error:
            raise explain("rebuild lease store", self.path, error) from error
        finally:
            db.close()
            os.close(lock)
        self.open()
        return aside

    def aside(self) -> tuple[Path, ...]:
        """Databases that were put aside and are still there."""
        found = self.path.parent.glob(f"{self.path.name}{ASIDE}*")
        return tuple(sorted(p for p in found if not p.name.endswith(("-wal", "-shm"))))

    def close(self) -> None:
        """Finish what is queued, release the file."""
        if self._writer is not None:
            self._writer.close()
            os.close(self._lock)
            self._writer = None
            self.problem = "the lease store is closed"

    def _load(self, db: sqlite3.Connection) -> None:
        self._rows, damaged = {}, []
        for container_id, ifname, body in db.execute("SELECT container_id, ifname, body FROM attachments"):
            try:
                self._rows[container_id, ifname] = codec.decode(body)
            except (msgspec.MsgspecError, ValueError, TypeError):
                damaged.append((container_id, ifname))
        self.damaged = tuple(damaged)
        leases = db.execute("SELECT address, container_id, ifname FROM leases")
        self._leased, self._owned = {}, {}
        for address, container_id, ifname in leases:
            self._take(ip_address(address), (container_id, ifname))
        db.execute(
            "DELETE FROM released WHERE boot_id <> ? OR at < ?", (self.boot_id, self.clock() - self._hold)
        )
        self._released = {
            ip_address(a): float(at) for a, at in db.execute("SELECT address, at FROM released ORDER BY at")
        }
        self._cursors = {key: ip_address(a) for key, a in db.execute("SELECT range, last FROM cursors")}
        self._past = {}
        for key, at, used in db.execute("SELECT range, at, used FROM usage ORDER BY at"):
            self._past.setdefault(key, []).append((float(at), int(used)))

    # Questions.

    def attachments(self) -> tuple[Attachment, ...]:
        """All that may exist, wired or not, of this boot and former ones."""
        return tuple(self._rows.values())

    def get(self, container_id: str, ifname: str) -> Attachment | None:
        """The attachment of an interface."""
        return self._rows.get((container_id, ifname))

    def leased(self) -> dict[Addr, Key]:
        """Every address that is taken, with its owner."""
        return dict(self._leased)

    def held(self) -> tuple[Addr, ...]:
        """Addresses that were released a moment ago and come last."""
        self._expire()
        return tuple(self._released)

    def past(self, range_name: str) -> tuple[Sample, ...]:
        """What ``sample`` remembers of a range, the oldest first."""
        return tuple(self._past.get(range_name, ()))

    def choose(
        self,
        sets: Sequence[RangeSet],
        requested: Iterable[Addr],
        foreign: Callable[[Addr], bool],
        reserved: tuple[Net, ...] = (),
    ) -> tuple[Choice, ...]:
        """One free address for each set, requested ones where given.

        Nothing is taken yet: call ``add`` before anything else gets to run. ``foreign`` tells whether the
        kernel knows an address as somebody's; what is ``reserved`` has to be requested. Raises AddressError,
        LeaseStoreError.
        """
        self._ready("choose an address in")
        wanted = match_requested(sets, requested)
        self._expire()
        choices = []
        for index, ranges in enumerate(sets):
            if (address := wanted.get(index)) is not None:
                self._check_free(address, foreign)
                choices.append(Choice(address, None))
                continue
            key = range_key(ranges)
            after = self._cursors.get(key)
            address = pick(
                ranges,
                after=after,
                leased=self._leased,
                held=self._released,
                foreign=foreign,
                reserved=reserved,
            )
            choices.append(Choice(address, key))
        return tuple(choices)

    def _check_free(self, address: Addr, foreign: Callable[[Addr], bool]) -> None:
        if (owner := self._leased.get(address)) is not None:
            raise AddressUnavailable(address, f"container {owner[0]} ({owner[1]}) has it", temporary=True)
        if foreign(address):
            raise AddressUnavailable(
                address,
                "a route of this node leads to it, but no lease, or a pod of another node has it",
                temporary=True,
            )

    # Changes.

    async def add(self, att: Attachment, choices: Sequence[Choice]) -> None:
        """Lease the chosen addresses to ``att``; durable when it returns.

        Raises AlreadyLeased, AddressUnavailable and LeaseStoreError (not durable); nothing is leased then.
        """
        writer = self._ready("write")
        key = (att.container_id, att.ifname)
        if key in self._rows:
            raise AlreadyLeased(f"container {att.container_id} has a lease for {att.ifname} already")
        for address in att.addresses:
            self._check_free(address, lambda _: False)
        statements: list[Statement] = [(_INSERT_ATTACHMENT, (*key, codec.encode(att)))]
        held: dict[Addr, float] = {}
        for address in att.addresses:
            text = str(address)
            statements.append((_INSERT_LEASE, (text, *key)))
            if (at := self._released.pop(address, None)) is not None:
                held[address] = at
                statements.append(("DELETE FROM released WHERE address = ?", (text,)))
        for choice in choices:
            if choice.cursor is not None:
                self._cursors[choice.cursor] = choice.address
                statements.append(
                    (
                        "INSERT OR REPLACE INTO cursors (range, last) VALUES (?, ?)",
                        (choice.cursor, str(choice.address)),
                    )
                )
        self._rows[key] = att
        for address in att.addresses:
            self._take(address, key)

        def settle(done: "asyncio.Future[None]") -> None:
            if done.exception() is not None:
                self._forget(key)
                self._released.update(held)

        await self._durable(writer, "write a lease to", statements, settle)

    async def release(self, container_id: str, ifname: str) -> None:
        """Give the addresses of an interface back; written when it returns. No such lease is success.

        Raises LeaseStoreError, and then the lease is still there.
        """
        writer = self._ready("write")
        key = (container_id, ifname)
        addresses = tuple(self._owned.get(key, ()))
        if key not in self._rows and not addresses:
            return
        now = self.clock()
        statements: list[Statement] = [
            ("DELETE FROM attachments WHERE container_id = ? AND ifname = ?", key),
            ("DELETE FROM leases WHERE container_id = ? AND ifname = ?", key),
            ("DELETE FROM released WHERE at < ?", (now - self._hold,)),
        ]
        statements += [(_HOLD, (str(a), self.boot_id, now)) for a in addresses]

        def settle(done: "asyncio.Future[None]") -> None:
            if done.exception() is None:
                self._forget(key)
                self._released.update(dict.fromkeys(addresses, now))

        await self._durable(writer, "release a lease in", statements, settle, synced=False)

    async def forget(self, address: Addr) -> None:
        """Free an address that no attachment speaks for; durable when it returns. Raises LeaseStoreError.

        ValueError for one that an attachment has: that is to be released.
        """
        writer = self._ready("forget an address in")
        owner = self._leased.get(address)
        if owner is None:
            return
        if (att := self._rows.get(owner)) is not None and address in att.addresses:
            raise ValueError(f"{address} belongs to {owner[1]} of container {owner[0]}")
        now, text = self.clock(), str(address)
        statements: list[Statement] = [
            ("DELETE FROM leases WHERE address = ?", (text,)),
            (_HOLD, (text, self.boot_id, now)),
        ]
        if att is None and self._owned[owner] == {address}:  # nothing else needs a row that cannot be read
            statements.append(("DELETE FROM attachments WHERE container_id = ? AND ifname = ?", owner))

        def settle(done: "asyncio.Future[None]") -> None:
            if done.exception() is None:
                self._give(address)
                self._released[address] = now
                if owner not in self._owned:
                    self.damaged = tuple(key for key in self.damaged if key != owner)

        await self._durable(writer, "forget an address in", statements, settle)

    async def relist(self, address: Addr, key: Key) -> None:
        """Lease an address to the attachment that says it has it. Raises LeaseStoreError, AddressUnavailable,
        and ValueError where the attachment says no such thing.
        """
        writer = self._ready("write a lease to")
        att = self._rows.get(key)
        if att is None or address not in att.addresses:
            raise ValueError(f"{key[1]} of container {key[0]} does not have {address}")
        if self._leased.get(address) == key:
            return
        self._check_free(address, lambda _: False)
        self._take(address, key)
        held = self._released.pop(address, None)

        def settle(done: "asyncio.Future[None]") -> None:
            if done.exception() is not None:
                self._give(address)
                if held is not None:
                    self._released[address] = held

        statements: list[Statement] = [
            (_INSERT_LEASE, (str(address), *key)),
            ("DELETE FROM released WHERE address = ?", (str(address),)),
        ]
        await self._durable(writer, "write a lease to", statements, settle)

    async def sample(self, used: Mapping[str, int], at: float) -> None:
        """Remember how many addresses of each range are used, for a day. Raises LeaseStoreError."""
        writer = self._ready("write figures to")
        statements: list[Statement] = [("DELETE FROM usage WHERE at < ? OR at > ?", (at - _DAY, at))]
        statements += [
            ("INSERT OR REPLACE INTO usage (range, at, used) VALUES (?, ?, ?)", (name, at, number))
            for name, number in used.items()
        ]

        def settle(done: "asyncio.Future[None]") -> None:
            if done.exception() is None:
                for name, number in used.items():
                    kept = [one for one in self._past.get(name, ()) if at - _DAY <= one[0] < at]
                    self._past[name] = [*kept, (at, number)]

        await self._durable(writer, "write figures to", statements, settle, synced=False)

    async def probe(self) -> None:
        """Find out whether the store works again: reopen it, or write a row. Raises LeaseStoreError."""
        if self._writer is None:
            self.open(patience=0)
            return
        statement = ("INSERT OR REPLACE INTO probe (id, at) VALUES (1, ?)", (self.clock(),))
        await self._durable(self._writer, "write to", [statement], lambda done: None)

    def _ready(self, operation: str) -> Writer:
        if self._writer is None:
            raise LeaseStoreError(operation, str(self.path), self.problem)
        return self._writer

    def _expire(self) -> None:
        """Drop what is held back no longer; the dictionary is in order of release."""
        oldest = self.clock() - self._hold
        while self._released and self._released[first := next(iter(self._released))] <= oldest:
            del self._released[first]

    def _forget(self, key: Key) -> None:
        self._rows.pop(key, None)
        for address in tuple(self._owned.get(key, ())):
            self._give(address)

    def _take(self, address: Addr, key: Key) -> None:
        self._leased[address] = key
        self._owned.setdefault(key, set()).add(address)

    def _give(self, address: Addr) -> None:
        key = self._leased.pop(address, None)
        if key is not None:
            self._owned[key].discard(address)
            if not self._owned[key]:
                del self._owned[key]

    async def _durable(
        self,
        writer: Writer,
        operation: str,
        statements: Sequence[Statement],
        settle: Callable[["asyncio.Future[None]"], None],
        *,
        synced: bool = True,
    ) -> None:
        """Wait for the disk. ``settle`` brings memory in line with the outcome in any case."""
        done = writer.submit(*statements, synced=synced)

        def finish(future: "asyncio.Future[None]") -> None:
            error = future.exception()
            told = explain(operation, self.path, error) if isinstance(error, sqlite3.Error) else None
            self.problem, self.lost = str(told or ""), told is not None and told.damaged
            settle(future)

        done.add_done_callback(finish)
        try:
            await asyncio.shield(done)
        except sqlite3.Error as error:
            raise explain(operation, self.path, error) from error
