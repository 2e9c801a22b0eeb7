"""Attachments that no DEL will come for, tried again while the calls of other pods bring a shim."""

from collections.abc import Awaitable, Callable

from towpath.cni.errors import CniError
from towpath.cni.request import Request
from towpath.multinet.journal import Journal, Key, Row

_AT_ONCE = 2
_FIRST, _LONGEST = 5.0, 600.0


class Due:
    """``detach`` does it, and returns what went wrong. Pauses double with each failure of a row."""

    def __init__(
        self,
        journal: Journal,
        detach: Callable[[Request, Row], Awaitable[CniError | None]],
        clock: Callable[[], float],
    ) -> None:
        self._journal, self._detach, self._clock = journal, detach, clock
        self._not_before: dict[Key, float] = {}

    def add(self, key: Key) -> None:
        """To be detached, from now on."""
        self._not_before.setdefault(key, self._clock())

    def __len__(self) -> int:
        return len(self._not_before)

    async def retry(self, r: Request) -> None:
        """Some of those whose time has come."""
        if not self._not_before:
            return
        now = self._clock()
        ripe = [key for key, at in self._not_before.items() if at <= now][:_AT_ONCE]
        for key in ripe:
            row = next((row for row in self._journal.of(key[0]) if row.key == key), None)
            if row is None or await self._detach(r, row) is None:
                self._not_before.pop(key, None)
            else:
                pause = min(_FIRST * 2.0 ** min(row.failures, 10), _LONGEST)
                self._not_before[key] = self._clock() + pause
