"""The hands that ``towpath-ns`` lends, where it runs: root on the host when no runtime call is at hand.

A hand is a shim that waits for an answer, as in a runtime's call, and meanwhile runs plugins. A visit is a
second shim, run by a hand, that brings the descriptors of one pod's namespace. Hands are answered after a
while, and come back.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec

from towpath.agent.network_plugins import PluginFailed, Plugins
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.cni.version import NEWEST

SHIM = "towpath-cni"
_SPELL = 45.0
# One that was answered is back within milliseconds, on a busy machine within seconds.
_BACK_WITHIN = 10.0
# A visit runs several plugins, each of which has its own deadline; this one ends what we ourselves do wrong.
_LONGEST = 3600.0

Work = Callable[[Request], Awaitable[None]]


class NoHand(Exception):
    """``towpath-ns`` does not run on this node, or all its hands are full."""


class _Hand:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.busy = asyncio.Lock()
        self.leaving = False


class Helper:
    """``arrived`` is called when there is a hand where there was none."""

    def __init__(self, plugins: Plugins, arrived: Callable[[], None] = lambda: None) -> None:
        self._plugins, self.arrived = plugins, arrived
        self._free: list[_Hand] = []
        self._came = asyncio.Event()
        self._visits: dict[str, Work] = {}

    @property
    def there(self) -> bool:
        """Whether a hand is free."""
        return bool(self._free)

    async def attend(self, r: Request) -> None:
        """A call of ``towpath-ns``, or of a shim that it ran for us. Raises CniError."""
        if r.container_id:
            await self._visited(r)
            return
        hand = _Hand(r)
        self._give_back(hand)
        self.arrived()
        try:
            async with asyncio.timeout(_SPELL * random.uniform(0.6, 1.0)):  # noqa: S311 - not all at once
                await r.cancelled.wait()
        except TimeoutError:
            pass
        finally:
            hand.leaving = True
            if hand in self._free:
                self._free.remove(hand)
        async with hand.busy:  # what it does it does to the end
            pass

    @contextlib.asynccontextmanager
    async def hand(self) -> AsyncIterator[Request]:
        """Somebody to run plugins. Where one has been, one is waited for. Raises NoHand."""
        if not self._free and self._came.is_set():
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BACK_WITHIN):
                    await self._came.wait()
        if not self._free:
            raise NoHand
        hand = self._free.pop()
        try:
            async with hand.busy:
                yield hand.request
        finally:
            if not hand.leaving and not hand.request.cancelled.is_set():
                self._give_back(hand)

    async def visit(self, environment: Mapping[str, str], network: str, work: Work) -> None:
        """Have ``work`` done by a call that brings the namespace CNI_NETNS of container CNI_CONTAINERID.

        Raises NoHand, what ``work`` raises, and PluginFailed or ConnectionError where nobody came.
        """
        container_id = environment["CNI_CONTAINERID"]
        failed: list[Exception] = []

        async def watched(r: Request) -> None:
            try:
                await work(r)
            except Exception as error:
                failed.append(error)
                raise CniError(ErrorCode.INTERNAL, "not done", str(error)) from error

        config = msgspec.json.encode({"cniVersion": NEWEST, "name": network, "type": SHIM})
        async with self.hand() as r:
            self._visits[container_id] = watched
            given = {**environment, "CNI_COMMAND": "ATTEND", "CNI_PATH": ":".join(r.path)}
            try:
                await self._plugins.run(r, SHIM, given, config, _LONGEST)
            except (PluginFailed, ConnectionError) as error:
                raise (failed[0] if failed else error) from error
            finally:
                self._visits.pop(container_id, None)

    def _give_back(self, hand: _Hand) -> None:
        self._free.append(hand)
        self._came.set()

    async def _visited(self, r: Request) -> None:
        work = self._visits.pop(r.container_id, None)
        if work is None:
            raise CniError(ErrorCode.UNKNOWN_CONTAINER, f"nobody waits for container {r.container_id}")
        if r.descriptors is None:
            raise CniError(ErrorCode.BAD_NETNS, f"the network namespace {r.netns} is gone")
        await work(r)
