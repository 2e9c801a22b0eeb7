"""Group commit: transactions that arrive while the disk is busy share the next synchronisation.

A thread of its own does the waiting for the disk, so that a slow one delays the answers it must delay and
nothing else.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Sequence

import msgspec

Statement = tuple[str, Sequence[object]]


class _Job(msgspec.Struct):
    """Statements that take effect together; ``done`` is set in ``loop`` when they are on the disk."""

    statements: tuple[Statement, ...]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[None]"


class Writer:
    """Commits jobs to one connection, which belongs to its thread from now on."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lease-store", daemon=True)
        self._thread.start()

    def submit(self, *statements: Statement) -> "asyncio.Future[None]":
        """Have all statements executed, or none; the future is done when they are durable, or fails.

        A job cannot be taken back: cancelling whoever waits must not leave its outcome unknown, so add a
        callback for what has to follow and shield the future when waiting for it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put(_Job(statements, loop, done))
        return done

    def close(self) -> None:
        """Finish what is queued and close the connection."""
        self._jobs.put(None)
        self._thread.join()
        self._db.close()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            closing = False
            with contextlib.suppress(queue.Empty):
                while True:
                    more = self._jobs.get_nowait()
                    if more is None:
                        closing = True
                        break
                    batch.append(more)
            self._commit(batch)
            if closing:
                return

    def _commit(self, batch: list[_Job]) -> None:
        error = self._try(batch)
        if error is not None and len(batch) > 1:
            # One bad job must not fail its neighbours.
            for job in batch:
                _report([job], self._try([job]))
            return
        _report(batch, error)

    def _try(self, batch: list[_Job]) -> sqlite3.Error | None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in batch:
                for sql, arguments in job.statements:
                    db.execute(sql, arguments)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            return error
        return None


def _report(batch: list[_Job], error: sqlite3.Error | None) -> None:
    """Wake the waiters, once for each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for job in batch:
        loops.setdefault(job.loop, []).append(job.done)
    for loop, waiters in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, waiters, error)


def _resolve(waiters: list["asyncio.Future[None]"], error: sqlite3.Error | None) -> None:
    for done in waiters:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
