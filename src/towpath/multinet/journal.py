"""The journal of extra networks: what every ADD was given, on the disk before its plugin runs.

A row means that the attachment may exist, and holds all that its DEL needs: the configuration, the arguments
and, once there is one, the result. It goes only when DEL has been done. So whatever becomes of pod,
definition, API server, configuration or agent, nothing that was attached is forgotten.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.ipam.writer import Statement, Writer
from towpath.log import get_logger
from towpath.model.attachment import PodRef
from towpath.multinet.derive import Call

log = get_logger("towpath.networks")

FILE = "networks.db"
_TABLES = """
CREATE TABLE IF NOT EXISTS schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO schema (id, version) VALUES (1, 1);
-- body: JSON of a Row. An older program ignores keys it does not know, so a release may add some.
CREATE TABLE IF NOT EXISTS attachments (
    container_id TEXT NOT NULL, ifname TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (container_id, ifname)
) WITHOUT ROWID;
"""
VERSION = 1
_REPLACE = "INSERT OR REPLACE INTO attachments (container_id, ifname, body) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM attachments WHERE container_id = ? AND ifname = ?"

Key = tuple[str, str]
"""Container ID and interface name."""


class JournalError(Exception):
    """The journal did not do it: nothing was promised. The text has operation, file and reason."""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment to an extra network.

    ``place`` its number among those of the container, in the order of ADD. ``main`` the interface that the
    runtime's call is about, ``runtime_network`` the network of that call. ``reference`` NAMESPACE/NAME of
    the definition. ``gateways`` of ``default-route``. ``instead``: it took the default network's place.
    ``own``: Towpath itself is the first plugin of the chain. ``general``: a network that all pods get.
    ``multus`` began it, before the node was Towpath's.
    ``result`` of the chain, None until ADD was done. ``failures`` of DEL so far, ``problem`` the last one's.
    """

    call: Call
    place: int
    main: str
    runtime_network: str
    reference: str
    boot_id: str
    request_id: str = ""
    pod: PodRef | None = None
    gateways: tuple[str, ...] = ()
    instead: bool = False
    own: bool = False
    general: bool = False
    multus: bool = False
    result: dict[str, Any] | None = None
    failures: int = 0
    problem: str = ""

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.call.container_id, self.call.ifname

    @property
    def done(self) -> bool:
        """Whether its ADD came to an end."""
        return self.result is not None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Row)


def read_rows(path: Path) -> tuple[Row, ...]:
    """What the journal says, for a process beside the agent; nothing where there is none. Raises
    JournalError.
    """
    if not path.exists():
        return ()
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as db:
            found = db.execute("SELECT body FROM attachments ORDER BY container_id, ifname").fetchall()
        return tuple(_DECODER.decode(body) for (body,) in found)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise JournalError(f"read {path}: {error}") from error


class Journal:
    """Rows of one node, in SQLite (WAL, synchronous FULL), mirrored in memory. For one event loop.

    Nobody else has the file: the lease store beside it keeps a second agent out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Writer | None = None
        self._rows: dict[str, dict[str, Row]] = {}
        self.problem = "the journal of networks is not open yet"
        """Why nothing can be written, empty while all is well."""
        self.damaged: tuple[Key, ...] = ()
        """Rows that cannot be read; they are kept."""

    def open(self) -> None:
        """Open the file and read it; again after a failure. Raises JournalError."""
        if self._writer is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
            try:
                self._load(db)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            self.problem = f"open {self.path}: {error}"
            raise JournalError(self.problem) from error
        self._writer = Writer(db)
        self.problem = ""

    def close(self) -> None:
        """Finish what is queued, release the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.problem = "the journal of networks is closed"

    def _load(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_TABLES)
        (version,) = db.execute("SELECT version FROM schema").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError(f"its schema is version {version}, this Towpath knows {VERSION}")
        self._rows, damaged = {}, []
        for container_id, ifname, body in db.execute("SELECT container_id, ifname, body FROM attachments"):
            try:
                self._keep(_DECODER.decode(body))
            except msgspec.MsgspecError as error:
                log.error("network_row_unreadable", container=container_id, ifname=ifname, error=str(error))
                damaged.append((container_id, ifname))
        self.damaged = tuple(damaged)

    # Questions.

    def of(self, container_id: str) -> tuple[Row, ...]:
        """A container's attachments, in the order of ADD."""
        return tuple(sorted(self._rows.get(container_id, {}).values(), key=lambda row: row.place))

    def rows(self) -> tuple[Row, ...]:
        """All."""
        return tuple(row for rows in self._rows.values() for row in rows.values())

    def __bool__(self) -> bool:
        return bool(self._rows)

    # Changes. Durable when they return; they raise JournalError, and then memory is as before.

    async def begin(self, rows: Sequence[Row]) -> None:
        """Say that these attachments may exist from now on."""
        await self._write(
            [(_REPLACE, (*row.key, _ENCODER.encode(row))) for row in rows], lambda: self._add(rows)
        )

    async def done(self, row: Row, result: dict[str, Any]) -> Row:
        """Say that its ADD is over; the row as it is then."""
        row = replace(row, result=result)
        await self.begin([row])
        return row

    async def failed(self, row: Row, problem: str) -> None:
        """Say that its DEL was tried in vain."""
        await self.begin([replace(row, failures=row.failures + 1, problem=problem[:1000])])

    async def forget(self, row: Row) -> None:
        """Say that it is detached."""
        await self._write([(_DELETE, row.key)], lambda: self._drop(row.key))

    def _add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._keep(row)

    def _keep(self, row: Row) -> None:
        self._rows.setdefault(row.call.container_id, {})[row.call.ifname] = row

    def _drop(self, key: Key) -> None:
        container_id, ifname = key
        rows = self._rows.get(container_id, {})
        rows.pop(ifname, None)
        if not rows:
            self._rows.pop(container_id, None)

    async def _write(self, statements: Sequence[Statement], settle: Callable[[], None]) -> None:
        if self._writer is None:
            self.open()
        assert self._writer is not None  # noqa: S101 - open raises otherwise
        done = self._writer.submit(*statements)
        done.add_done_callback(lambda future: settle() if future.exception() is None else None)
        try:
            await asyncio.shield(done)
        except sqlite3.Error as error:
            self.problem = f"write {self.path}: {error}"
            raise JournalError(self.problem) from error
        self.problem = ""
