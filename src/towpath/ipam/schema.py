"""The lease database: what is in it, how it is opened, how damage shows.

An upgrade goes both ways: what one release writes, those of the minor version before and after it read. So a
release may add tables, columns with a default and keys to the body, and leave the version as it is; older
ones do not see them. What they would misread takes a new version, in two minors: the first reads it already
and still writes the old one. Statements name their columns.

One row of ``attachments`` means that the interface may exist; its addresses are the rows of ``leases`` with
the same key, and it is their primary key that makes a second owner impossible, whatever the program believes.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from pathlib import Path

from towpath.ipam.errors import LeaseStoreError

VERSION = 1

TABLES = """
-- One row, so that an older program refuses a newer file instead of misreading it.
CREATE TABLE IF NOT EXISTS schema (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
-- body: ipam.codec's JSON of the attachment.
CREATE TABLE IF NOT EXISTS attachments (
    container_id TEXT NOT NULL, ifname TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (container_id, ifname)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    address TEXT PRIMARY KEY, container_id TEXT NOT NULL, ifname TEXT NOT NULL
) WITHOUT ROWID;
-- Addresses released in this boot, with the time since boot: not given out again for a while.
CREATE TABLE IF NOT EXISTS released (
    address TEXT PRIMARY KEY, boot_id TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
-- Where the round robin of a range set stands.
CREATE TABLE IF NOT EXISTS cursors (range TEXT PRIMARY KEY, last TEXT NOT NULL) WITHOUT ROWID;
-- How many addresses of a range set were used, now and then, by wall-clock time: what a forecast is made of.
CREATE TABLE IF NOT EXISTS usage (
    range TEXT NOT NULL, at REAL NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (range, at)
) WITHOUT ROWID;
-- Written to find out whether the disk takes anything again.
CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);
"""

_NAMES = frozenset(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", TABLES))

# Behind the name of a database that was damaged, and a number.
ASIDE = ".damaged-"
_LOG_PAGES = 256
_PLENTY = 64 << 20  # bytes free

_ASIDE = "it is put aside and made anew from what the kernel and the API server know, once the latter answers"


def connect(path: Path, patience: float) -> tuple[sqlite3.Connection, int]:
    """Open or create the database; the connection and a descriptor that keeps other processes out.

    Another process is given ``patience`` seconds to leave: one that was killed lingers while the kernel
    finishes what its threads are in, such as the deletion of a link.
    Close the connection before the descriptor: closing any descriptor of a file drops all POSIX locks the
    process has on it, SQLite's included. Raises LeaseStoreError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LeaseStoreError("open lease store", str(path), error.strerror or str(error)) from error
    try:
        _lock(lock, patience)
        return _open(path), lock
    except BlockingIOError as error:
        os.close(lock)
        hint = "two agents on one node must not share a state folder"
        raise LeaseStoreError("open lease store", str(path), "another process has it open", hint) from error
    except sqlite3.Error as error:
        os.close(lock)
        raise explain("open lease store", path, error) from error
    except BaseException:
        os.close(lock)
        raise


def _lock(descriptor: int, patience: float) -> None:
    """Raises BlockingIOError."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        # FULL: a commit is on the disk when it returns. Only a lease that survives a power cut may be used.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        damage = [row[0] for row in db.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
        if damage:
            raise LeaseStoreError(
                "open lease store", str(path), f"damaged: {'; '.join(damage)}", _ASIDE, damaged=True
            )
        _migrate(db, path)
        _reserve(db, path)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    known = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "schema" in known:
        row = db.execute("SELECT version FROM schema").fetchone()
        version = int(row[0]) if row else 0
        if version > VERSION:
            reason = f"its schema is version {version}, this Towpath knows {VERSION}"
            raise LeaseStoreError(
                "open lease store", str(path), reason, "run the newer Towpath that wrote it"
            )
        if version == VERSION and known >= _NAMES:
            return
    db.executescript(f"BEGIN IMMEDIATE; {TABLES}")
    db.execute("INSERT OR REPLACE INTO schema (id, version) VALUES (1, ?)", (VERSION,))
    db.execute("COMMIT")


def _reserve(db: sqlite3.Connection, path: Path) -> None:
    """Give the write-ahead log the size it will ever have, by a transaction that is not committed.

    To write over blocks a file has takes a third less time than to add some (0.23 ms against 0.35), and goes
    on working when the disk is full: a DEL can still be recorded. Where space is scarce, nothing is done.
    """
    db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < _PLENTY:
        return
    cache = db.execute("PRAGMA cache_size").fetchone()[0]
    db.execute("PRAGMA cache_size = 4")  # so that what does not fit is written to the log at once
    db.execute("BEGIN IMMEDIATE")
    with contextlib.suppress(sqlite3.OperationalError):
        db.execute("CREATE TABLE filling (body BLOB)")
        db.execute("INSERT INTO filling VALUES (zeroblob(?))", (_LOG_PAGES * 4096,))
    if db.in_transaction:
        db.execute("ROLLBACK")
    db.execute(f"PRAGMA cache_size = {cache}")


def explain(operation: str, path: Path, error: sqlite3.Error) -> LeaseStoreError:
    """SQLite's error as ours, with what to do."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        hint = f"free space on the file system of {path.parent}"
    elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        hint = _ASIDE
    elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        hint = f"make {path.parent} writable for the agent's user"
    elif name.startswith("SQLITE_IOERR"):
        hint = f"look for a full or failing disk under {path.parent}"
    else:
        hint = ""
    return LeaseStoreError(operation, str(path), str(error), hint, damaged=hint == _ASIDE)


def put_aside(path: Path) -> Path:
    """Rename a damaged database, with its log, so that another can be made; returns its new name.

    Raises LeaseStoreError.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}{ASIDE}{number}")).exists():
        number += 1
    try:
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        path.rename(aside)
    except OSError as error:
        raise LeaseStoreError("put aside", str(path), error.strerror or str(error)) from error
    return aside
