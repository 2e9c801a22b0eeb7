"""The journal of a run: what is about to be done is on the disk before it is done.

One JSON object a line in ``state_dir/migration.jsonl``. A line that a power cut left half-written is the last
one and counts as not written. Lines are never rewritten; a run that began after another has ended, or in the
other direction, follows it in the same file.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from towpath.migrate.plan import Direction, Facts

FILE = "migration.jsonl"


class JournalUnreadable(Exception):
    """A line in the middle makes no sense. The text names file and line."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A line. ``event``: a run's "start" (with ``direction`` and ``facts``) and "end", a step's "begin" and
    "done". ``at`` in seconds since 1970, for people.
    """

    event: str
    at: float = 0.0
    step: int = -1
    text: str = ""
    direction: Direction = "takeover"
    facts: Facts | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the journal tells it: ``done`` steps by number; ``ended`` if nothing of it is left to do."""

    direction: Direction
    facts: Facts
    done: frozenset[int] = frozenset()
    ended: bool = False

    @property
    def begun(self) -> bool:
        """Whether a step of it may have had any effect."""
        return bool(self.done)


class Journal:
    """Raises OSError from all methods."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self) -> Run | None:
        """The newest run. Raises JournalUnreadable."""
        run: Run | None = None
        for entry in self._entries():
            if entry.event == "start" and entry.facts is not None:
                run = Run(direction=entry.direction, facts=entry.facts)
            elif run is not None and entry.event == "done":
                run = msgspec.structs.replace(run, done=run.done | {entry.step})
            elif run is not None and entry.event == "end":
                run = msgspec.structs.replace(run, ended=True)
        return run

    def start(self, direction: Direction, facts: Facts) -> Run:
        """A new run."""
        self._write(Entry(event="start", direction=direction, facts=facts))
        return Run(direction=direction, facts=facts)

    def begin(self, step: int, text: str) -> None:
        """A step is about to be carried out."""
        self._write(Entry(event="begin", step=step, text=text))

    def done(self, step: int) -> None:
        """It has been."""
        self._write(Entry(event="done", step=step))

    def end(self) -> None:
        """Nothing of the run is left."""
        self._write(Entry(event="end"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one run at a time. Raises BlockingIOError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def _entries(self) -> list[Entry]:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        entries = []
        for number, line in enumerate(lines[:-1], 1):
            try:
                entries.append(msgspec.json.decode(line, type=Entry))
            except msgspec.MsgspecError as error:
                raise JournalUnreadable(f"{self.path}:{number}: {error}") from error
        return entries

    def _write(self, entry: Entry) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = msgspec.json.encode(msgspec.structs.replace(entry, at=round(time.time(), 3))) + b"\n"
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # What a power cut left of a line makes way for this one.
            written = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            keep = written.rfind(b"\n") + 1
            os.ftruncate(descriptor, keep)
            os.pwrite(descriptor, line, keep)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
