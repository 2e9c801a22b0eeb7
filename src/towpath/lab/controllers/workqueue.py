"""Keys waiting to be looked at: each at most once, none by two workers at a time, failures with back-off."""

import asyncio
from collections import deque

_FIRST_RETRY, _LAST_RETRY = 0.005, 10.0


class WorkQueue:
    """As client-go's: a key added while it is being worked on comes again afterwards, once."""

    def __init__(self) -> None:
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        self._active: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def add(self, key: str) -> None:
        """Soon; adding it again before then changes nothing."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._active:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: str, delay: float) -> None:
        """In ``delay`` seconds, unless an earlier time is set already."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._ring, key)

    def retry(self, key: str, at_least: float = 0.0) -> float:
        """After a failure: in 5 ms, doubling to 10 s. Answers how long that is."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(at_least, min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(failures, 16)))
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        """It worked: the next failure starts small."""
        self._failures.pop(key, None)

    async def take(self) -> str:
        """The next key, now being worked on; ``done`` must follow."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: str) -> None:
        """Work on the key has ended."""
        self._active.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _ring(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)
