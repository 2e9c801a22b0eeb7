"""Sysctls that others reset: the kernel tells nobody of most of them, so they are looked at."""

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter

from towpath.kernel.sysctl import Sysctls

_SECONDS = 0.6
# A look takes 7 us a setting, and a pod has eight: never more than one per cent of a processor.
_SHARE = 100


class SettingsWatch:
    """Calls ``changed`` when a setting of ``wanted()`` that exists has another value. Raises OSError."""

    def __init__(self, wanted: Callable[[], Mapping[str, str]], changed: Callable[[], None]) -> None:
        self._wanted, self._changed = wanted, changed
        self._sysctls = Sysctls.here()

    def close(self) -> None:
        """Look no more."""
        self._sysctls.close()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = perf_counter()
            wanted = self._wanted()
            if any(wanted[path] != value for path, value in self._sysctls.read(wanted).items()):
                self._changed()
            await asyncio.sleep(max(_SECONDS, (perf_counter() - begun) * _SHARE))
