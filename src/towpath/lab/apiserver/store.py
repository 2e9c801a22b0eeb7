"""Objects in memory, behind them SQLite; one global, monotonic resourceVersion.

Reads and watches never touch the database. A write is committed before it is visible: an upsert of one row
in WAL mode costs 11 µs on a tmpfs, so each write is its own transaction. ``synchronous=OFF``: a lab's
database survives the death of the server process, not a power cut. A deletion leaves a row without data, so
that the highest resourceVersion survives a restart; such rows are purged as they pile up.
"""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from towpath.lab.apiserver.errors import Obj

SCHEMA_VERSION = 1
HISTORY = 2048  # events kept for watches, per resource: some 25 MB when all of them are of large pods
PURGE_AT = 4096  # rows of deleted objects kept before they are purged

encode = msgspec.json.Encoder().encode
decode_object = msgspec.json.Decoder(dict).decode


class StoreError(Exception):
    """The database cannot be opened or written: ``operation``, the file, and what SQLite said."""

    def __init__(self, operation: str, path: str, reason: str) -> None:
        super().__init__(f"{operation} {path}: {reason}")
        self.operation, self.path, self.reason = operation, path, reason


class Stored:
    """One version of one object. ``obj`` must not be changed; ``raw`` is its JSON; both carry ``rv``."""

    __slots__ = ("name", "namespace", "obj", "raw", "rv", "views")

    def __init__(self, namespace: str, name: str, rv: int, obj: Obj, raw: bytes) -> None:
        self.namespace, self.name, self.rv, self.obj, self.raw = namespace, name, rv, obj, raw
        self.views: dict[str, bytes] = {}  # renderings under other API versions, by apiVersion


class Event:
    """One change: ``old`` is None for a creation, ``new`` carries the new resourceVersion always.

    For a deletion ``new`` is the object's last state and ``deleted`` is true. ``frames`` caches encodings.
    """

    __slots__ = ("deleted", "frames", "new", "old", "rv")

    def __init__(self, rv: int, old: Stored | None, new: Stored, deleted: bool) -> None:
        self.rv, self.old, self.new, self.deleted = rv, old, new, deleted
        self.frames: dict[str, bytes] = {}


class Bucket:
    """All objects of one stored resource, the events of its recent past, and who listens."""

    __slots__ = ("events", "floor", "listeners", "spaces")

    def __init__(self, floor: int) -> None:
        self.spaces: dict[str, dict[str, Stored]] = {}
        self.events: deque[Event] = deque()
        self.floor = floor  # a watch may start at this resourceVersion or later
        self.listeners: dict[int, Callable[[Event], None]] = {}


class Store:
    """``get``/``list``/``put``/``remove``; calls are synchronous and the caller is one thread."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._buckets: dict[str, Bucket] = {}
        self._tombs = 0
        self._listener = 0
        self._floor = 0
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None)
            self._open()
            self.rv = self._load()
        except sqlite3.Error as e:
            raise StoreError("open", self._path, str(e)) from e
        self.compact()

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (resource TEXT NOT NULL, namespace TEXT NOT NULL, "
            "name TEXT NOT NULL, rv INTEGER NOT NULL, data BLOB, PRIMARY KEY (resource, namespace, name))"
        )
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, SCHEMA_VERSION):
            raise StoreError(
                "open", self._path, f"schema version {found}, this program knows {SCHEMA_VERSION}"
            )
        self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _load(self) -> int:
        top = 0
        for resource, namespace, name, rv, data in self._db.execute("SELECT * FROM objects"):
            top = max(top, rv)
            if data is None:
                self._tombs += 1
                continue
            spaces = self.bucket(resource).spaces
            spaces.setdefault(namespace, {})[name] = Stored(namespace, name, rv, decode_object(data), data)
        return top

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def bucket(self, resource: str) -> Bucket:
        """The bucket of a stored resource (``apps/deployments``), made when first named."""
        found = self._buckets.get(resource)
        if found is None:
            found = self._buckets[resource] = Bucket(self._floor)
        return found

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        """The current version, None where there is none."""
        space = self.bucket(resource).spaces.get(namespace)
        return space.get(name) if space else None

    def list(self, resource: str, namespace: str | None = None) -> list[Stored]:
        """Current versions by namespace and name; ``namespace`` None means all."""
        spaces = self.bucket(resource).spaces
        names = sorted(spaces) if namespace is None else [namespace]
        return [s[name] for s in (spaces.get(n) or {} for n in names) for name in sorted(s)]

    def put(self, resource: str, namespace: str, name: str, obj: Obj) -> Stored:
        """Create or replace; stamps ``metadata.resourceVersion`` into ``obj``, which the store then owns.

        Raises StoreError, and then nothing has changed.
        """
        rv = self.rv + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        new = Stored(namespace, name, rv, obj, encode(obj))
        self._write(resource, new, new.raw)
        space = self.bucket(resource).spaces.setdefault(namespace, {})
        old = space.get(name)
        space[name] = new
        self._publish(resource, Event(rv, old, new, False))
        return new

    def remove(self, resource: str, namespace: str, name: str) -> Stored:
        """Delete; gives the last state under the deletion's resourceVersion. Raises KeyError, StoreError."""
        space = self.bucket(resource).spaces[namespace]
        old = space[name]
        rv = self.rv + 1
        obj = {**old.obj, "metadata": {**old.obj["metadata"], "resourceVersion": str(rv)}}
        new = Stored(namespace, name, rv, obj, encode(obj))
        self._write(resource, new, None)
        del space[name]
        self._publish(resource, Event(rv, old, new, True))
        return new

    def _write(self, resource: str, new: Stored, data: bytes | None) -> None:
        try:
            self._db.execute(
                "INSERT INTO objects VALUES (?,?,?,?,?) "
                "ON CONFLICT DO UPDATE SET rv=excluded.rv, data=excluded.data",
                (resource, new.namespace, new.name, new.rv, data),
            )
        except sqlite3.Error as e:
            raise StoreError("write", self._path, str(e)) from e
        self.rv = new.rv
        if data is None:
            self._bury(new.rv)

    def _bury(self, rv: int) -> None:
        """Purge the rows of deleted objects once there are many; another time where that fails."""
        self._tombs += 1
        if self._tombs >= PURGE_AT:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("DELETE FROM objects WHERE data IS NULL AND rv < ?", (rv,))
                self._tombs = 1

    def _publish(self, resource: str, event: Event) -> None:
        bucket = self.bucket(resource)
        bucket.events.append(event)
        if len(bucket.events) > HISTORY:
            bucket.floor = bucket.events.popleft().rv
        for listener in list(bucket.listeners.values()):
            listener(event)

    def compact(self) -> None:
        """Forget all history: watches from before now get 410 Gone. Running watches go on."""
        self._floor = self.rv
        for bucket in self._buckets.values():
            bucket.events.clear()
            bucket.floor = self.rv

    def since(self, resource: str, rv: int) -> Iterator[Event] | None:
        """Events after ``rv``, oldest first; None when the history does not reach back so far."""
        bucket = self.bucket(resource)
        if rv < bucket.floor:
            return None
        newer: list[Event] = []
        for event in reversed(bucket.events):
            if event.rv <= rv:
                break
            newer.append(event)
        return reversed(newer)

    def listen(self, resource: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with each event from now on; the answer ends it."""
        self._listener += 1
        number, listeners = self._listener, self.bucket(resource).listeners
        listeners[number] = listener
        return lambda: listeners.pop(number, None) and None
