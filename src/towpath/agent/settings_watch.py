"""Sysctls that others reset: the kernel tells nobody of most of them, so they are looked at.

Of forwarding and proxying it tells (kernel/watch.py), so those are not: each look wakes a processor.
"""

import asyncio
import resource
from collections.abc import Callable, Mapping
from time import perf_counter

from towpath.kernel.sysctl import KeptOpen, Sysctls

_SECONDS = 0.6
# Of a pod's settings, four are looked at, 2 us each: never more than one per cent of a processor.
_SHARE = 100
_MOST = 16384
_TOLD = ("/forwarding", "/proxy_arp", "/proxy_ndp", "/ip_forward")


class SettingsWatch:
    """Calls ``changed`` when a setting of ``wanted()`` that exists has another value. Raises OSError."""

    def __init__(self, wanted: Callable[[], Mapping[str, str]], changed: Callable[[], None]) -> None:
        self._wanted, self._changed = wanted, changed
        self._all: Mapping[str, str] = {}
        self._untold: dict[str, str] = {}
        self._sysctls = Sysctls.here()
        # Half of what may be open is left to everything else.
        self._kept = KeptOpen(self._sysctls, min(_MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))

    def close(self) -> None:
        """Look no more."""
        self._kept.close()
        self._sysctls.close()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = perf_counter()
            if self._kept.others(self._looked_at()):
                self._changed()
            await asyncio.sleep(max(_SECONDS, (perf_counter() - begun) * _SHARE))

    def _looked_at(self) -> dict[str, str]:
        wanted = self._wanted()
        if wanted is not self._all:
            self._all = wanted
            self._untold = {path: value for path, value in wanted.items() if not path.endswith(_TOLD)}
        return self._untold
