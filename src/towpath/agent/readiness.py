"""What being ready means, told truthfully: API listed once, kernel as desired, CNI calls served."""

import asyncio
from collections.abc import Iterable

from towpath.agent.attach_settings import AttachSettings
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Handler, Request
from towpath.cni.result import Result

_ADD_WAITS = 10.0


class Readiness:
    """Conditions by name; each is the reason why it does not hold, empty when it does."""

    def __init__(self, names: Iterable[str] = ("api", "kernel", "cni")) -> None:
        self.conditions = dict.fromkeys(names, "the agent is starting")

    def set(self, name: str, reason: str) -> None:
        """State a condition; one that is not asked about here (no cluster, no API) is passed over."""
        if name in self.conditions:
            self.conditions[name] = reason

    @property
    def ready(self) -> bool:
        """Whether all hold."""
        return not any(self.conditions.values())

    def text(self) -> str:
        """One line a condition, as Kubernetes' own ``/readyz?verbose`` has it."""
        lines = [
            f"[-]{name}: {reason}" if reason else f"[+]{name} ok" for name, reason in self.conditions.items()
        ]
        return "\n".join([*lines, "ready" if self.ready else "not ready"]) + "\n"


class GatedHandler:
    """A CNI handler that lets ADD wait, for a while, until the node can take pods.

    An ADD that comes while the agent starts is better answered late than refused: the kubelet's next try is
    seconds away. Everything else passes at once. ``busy`` counts the calls under way.
    """

    def __init__(self, inner: Handler, settings: AttachSettings) -> None:
        self._inner, self._settings = inner, settings
        self._opened = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._held = ""
        self.busy = 0

    def open(self) -> None:
        """Pods can be attached from now on."""
        self._opened.set()

    def hold(self, reason: str) -> None:
        """Let new pods wait, whatever else is well; no reason lets them in again."""
        self._held = reason
        if reason:
            self._free.clear()
        else:
            self._free.set()

    async def add(self, r: Request) -> Result:
        """Raises TRY_LATER with the reason when the node does not get ready in time."""
        if not (self._opened.is_set() and self._free.is_set()):
            try:
                async with asyncio.timeout(_ADD_WAITS):
                    await self._opened.wait()
                    await self._free.wait()
            except TimeoutError:
                reason = self._held or self._settings.not_ready
                raise CniError(ErrorCode.TRY_LATER, "the node is not ready for pods", reason) from None
        self.busy += 1
        try:
            return await self._inner.add(r)
        finally:
            self.busy -= 1

    async def delete(self, r: Request) -> None:
        """Straight through."""
        self.busy += 1
        try:
            await self._inner.delete(r)
        finally:
            self.busy -= 1

    async def check(self, r: Request) -> None:
        """Straight through."""
        await self._inner.check(r)

    async def status(self, r: Request) -> None:
        """Straight through."""
        await self._inner.status(r)

    async def gc(self, r: Request) -> None:
        """Straight through."""
        await self._inner.gc(r)
