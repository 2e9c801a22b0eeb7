"""Waiting on a busy machine: for a condition as long as it takes; for speed until it shows once.

Waits cost nothing when all is well. What must be quick is tried again when it was not: other programs only
ever add to a time, so the least of several attempts counts, and what is slow by itself never shows it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

PATIENT = 240.0  # seconds
ATTEMPTS = 20


def until(holds: Callable[[], object], seconds: float = PATIENT) -> None:
    """Wait for ``holds``, which no event tells of. Raises AssertionError when it never does."""
    for _ in _turns(holds, seconds):
        time.sleep(0.01)


async def true(holds: Callable[[], object], seconds: float = PATIENT) -> None:
    """As ``until``, in a coroutine. Raises AssertionError when it never does."""
    for _ in _turns(holds, seconds):
        await asyncio.sleep(0.01)


def _turns(holds: Callable[[], object], seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        yield


async def within(seconds: float, attempt: Callable[[], Awaitable[object]]) -> None:
    """``attempt`` takes less than ``seconds`` at least once. Raises AssertionError when it never does."""
    took = []
    for _ in range(ATTEMPTS):
        begun = time.monotonic()
        await attempt()
        took.append(time.monotonic() - begun)
        if took[-1] < seconds:
            return
    raise AssertionError(f"never within {seconds} s: {took}")
