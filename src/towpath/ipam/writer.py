"""Group commit: jobs submitted in one turn of the event loop, or while the disk is busy, share one.

A lone commit to a good disk takes less than handing it to another thread and back: it is done on the spot.
When many come, and on a disk that turned out slow, a thread of its own does the waiting: the disk delays the
answers it must delay, and nothing else.

What may be lost in a power cut does not wait for the disk. It is written, so that it outlives the process,
and is on the disk at the latest with the next job that waits: the log keeps the order.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence

import msgspec

Statement = tuple[str, Sequence[object]]

# Handing over and back costs 0.4 ms. A disk that takes longer than this, in seconds, is the thread's.
_QUICK = 0.005
# Jobs that follow each other faster than this, in seconds, are a burst.
_BURST = 0.003


class _Job(msgspec.Struct):
    """Statements that take effect together; ``done`` is set in its loop when they have been committed.

    ``synced``: only when they are on the disk.
    """

    statements: tuple[Statement, ...]
    done: "asyncio.Future[None]"
    synced: bool


class _Batch(msgspec.Struct):
    """Jobs that share a transaction, and how each of them ended."""

    jobs: list[_Job]
    loop: asyncio.AbstractEventLoop
    errors: list[sqlite3.Error | None] = []
    quick: bool = True


class Writer:
    """Commits jobs to one connection, which is this object's from now on. To be used from one event loop."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._gathered: list[_Job] = []
        self._quick = True
        self._synced = True  # as schema.connect leaves it
        self._last = 0.0
        self._handed = 0
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lease-store", daemon=True)
        self._thread.start()

    def submit(self, *statements: Statement, synced: bool = True) -> "asyncio.Future[None]":
        """Have all statements executed, or none; the future is done when they are durable, or fails.

        Not ``synced``, they survive the process from then on, and a power cut from the next synced job on.

        A job cannot be taken back: cancelling whoever waits must not leave its outcome unknown, so add a
        callback for what has to follow and shield the future when waiting for it.
        """
        loop = asyncio.get_running_loop()
        if not self._gathered:
            loop.call_soon(self._begin, loop)
        done: asyncio.Future[None] = loop.create_future()
        self._gathered.append(_Job(statements, done, synced))
        return done

    def close(self) -> None:
        """Finish what was submitted and close the connection."""
        self._batches.put(None)
        self._thread.join()
        if self._gathered:
            self._execute(self._gathered)
            self._gathered = []
        self._db.close()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit what this turn of the loop has gathered, here or in the thread."""
        batch, self._gathered = _Batch(self._gathered, loop), []
        self._handed += 1
        now = time.monotonic()
        alone, self._last = len(batch.jobs) == 1 and now - self._last > _BURST, now
        if alone and self._quick and self._handed == 1:
            self._commit(batch)
            self._end([batch])
        else:
            self._batches.put(batch)

    def _end(self, batches: list[_Batch]) -> None:
        """Tell whoever waits."""
        for batch in batches:
            self._handed -= 1
            self._quick = batch.quick
            for job, error in zip(batch.jobs, batch.errors, strict=True):
                if error is None:
                    job.done.set_result(None)
                else:
                    job.done.set_exception(error)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            batches = [batch]
            closing = False
            with contextlib.suppress(queue.Empty):
                while not closing:
                    more = self._batches.get_nowait()
                    if more is None:
                        closing = True
                    else:
                        batches.append(more)
            self._commit(*batches)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                batch.loop.call_soon_threadsafe(self._end, batches)
            if closing:
                return

    def _commit(self, *batches: _Batch) -> None:
        """One transaction for all; if it fails, one for each job: a bad one must not fail its neighbours."""
        began = time.monotonic()
        jobs = [job for batch in batches for job in batch.jobs]
        error = self._execute(jobs)
        errors: list[sqlite3.Error | None]
        errors = (
            [error] * len(jobs) if error is None or len(jobs) == 1 else [self._execute([job]) for job in jobs]
        )
        quick = time.monotonic() - began < _QUICK
        for batch in batches:
            batch.errors, errors = errors[: len(batch.jobs)], errors[len(batch.jobs) :]
            batch.quick = quick

    def _execute(self, jobs: list[_Job]) -> sqlite3.Error | None:
        """All statements of all jobs in one transaction; the error that undid it, if any."""
        db = self._db
        synced = any(job.synced for job in jobs)
        try:
            if synced is not self._synced:
                db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                for sql, arguments in job.statements:
                    db.execute(sql, arguments)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            return error
        return None
