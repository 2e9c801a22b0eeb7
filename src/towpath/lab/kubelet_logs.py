"""Reading container logs: CRI files back into what ``kubectl logs`` prints."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec

from towpath.lab.kubelet_status import rfc3339

_FOLLOW_POLL = 0.1
_PIECE = 64 * 1024


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``v1.PodLogOptions``. ``since`` RFC 3339, "" for all; ``tail`` lines, ``limit`` bytes, −1 for all."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int = -1
    limit: int = -1
    since: str = ""


class BadLogOptions(ValueError):
    """A query parameter that is no number; the text says which."""


def log_options(query: Mapping[str, str], now: float) -> LogOptions:
    """From the kubelet endpoint's query. Raises BadLogOptions."""
    try:
        since = query.get("sinceTime", "")
        if "sinceSeconds" in query:
            since = rfc3339(now - int(query["sinceSeconds"]))
        return LogOptions(
            follow=query.get("follow") in ("true", "1"),
            previous=query.get("previous") in ("true", "1"),
            timestamps=query.get("timestamps") in ("true", "1"),
            tail=int(query.get("tailLines", -1)),
            limit=int(query.get("limitBytes", -1)),
            since=since,
        )
    except ValueError as bad:
        raise BadLogOptions(str(bad)) from bad


def shown(line: bytes, options: LogOptions) -> bytes:
    """One CRI line as it is printed; empty when it is older than asked for, or damaged."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    time, _, tag, text = parts
    if options.since and time.decode() < options.since.removesuffix("Z"):
        return b""
    prefix = time + b" " if options.timestamps else b""
    return prefix + text + (b"" if tag == b"P" else b"\n")


async def read(path: Path, options: LogOptions, still_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log, then (``follow``) what is added while ``still_running()``. Raises OSError."""
    budget = options.limit if options.limit >= 0 else None
    with path.open("rb") as file:
        lines = [text for line in file if (text := shown(line.rstrip(b"\n"), options))]
        if options.tail >= 0:
            lines = lines[len(lines) - options.tail :] if options.tail else []
        pending = b"".join(lines)
        rest = b""
        while True:
            if budget is not None:
                pending = pending[:budget]
                budget -= len(pending)
            if pending:
                yield pending
            if not options.follow or budget == 0:
                return
            alive = still_running()
            data = file.read(_PIECE)
            if not data:
                if not alive:
                    return
                await asyncio.sleep(_FOLLOW_POLL)
            *complete, rest = (rest + data).split(b"\n")
            pending = b"".join(shown(line, options) for line in complete)


def log_path(folder: Path, container: str, restarts: int, options: LogOptions) -> Path:
    """The file of the present (or previous) process of a container."""
    return folder / container / f"{restarts - 1 if options.previous else restarts}.log"
