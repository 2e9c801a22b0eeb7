"""The agent's ear on NFLOG: denied packets and what rules log become lines of its own log.

``towpath policy log`` reads them by ``kubectl logs``' own means, so that nothing listens and nobody needs
more rights. A flood costs little, wherever it comes from: the kernel samples denials and limits each rule
that logs before it makes a message, its queue is bounded, we take so many at a time, and what is lost is
counted.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from towpath.agent.address_book import AddressBook
from towpath.agent.metrics import Metrics
from towpath.agent.policy_records import Judge, Where, record, told
from towpath.api.policy_record import EVENT, LOGGER, LOST
from towpath.desired.revocation import Flow
from towpath.desired.ruleset import TABLE
from towpath.kernel.nflog import LogMessage, LogSocket, Seen
from towpath.kernel.nft_counters import RuleCounters
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.model.policy import DENIED
from towpath.policy.causes import Cause
from towpath.policy.ir import Direction

log = get_logger("towpath.policy")
lines = get_logger(LOGGER)

_AGAIN = 5.0  # the agent before us may still have the group
_KEPT = 1000  # messages that wait to become lines
_READS = 8  # pieces of at most 32 messages
_PAUSE = 0.1
_TELL = 10.0  # seconds between lines about what was lost
_MARGIN = 1 << 31


class PolicyLog:
    """``judge`` None while policies are not known; ``local``: this node's endpoints by address."""

    def __init__(
        self,
        node: str,
        group: int,
        judge: Callable[[], Judge | None],
        local: Callable[[], Mapping[Addr, str]],
        book: AddressBook,
        metrics: Metrics,
    ) -> None:
        self._node, self._group = node, group
        self._judge, self._local, self._book, self._metrics = judge, local, book, metrics
        self._waiting: deque[LogMessage] = deque()
        self._came = asyncio.Event()
        self._expected = -1
        self._lost = 0
        self._problem = ""

    def findings(self) -> list[Finding]:
        """Why nothing is heard."""
        if not self._problem:
            return []
        fix = "end the other listener, or set policy_log_group to a group that nobody uses"
        node = f"Node/{self._node}"
        return [Finding(code="TP5160", object=node, message=self._problem, fix=fix, severity="warning")]

    async def cut(self, flow: Flow, direction: Direction, why: Cause) -> None:
        """A line about a flow that was cut."""
        names = await self._book.names((flow.source, flow.destination))
        where = Where(self._node, self._local(), names)
        seen = Seen(flow.source, flow.destination, flow.protocol, flow.first, flow.second)
        found = told(seen, where, time.time(), "cut", direction=direction, why=why)
        self._metrics.count("towpath_policy_log_records", found.action)
        lines.info(EVENT, record=found)

    async def run(self) -> None:
        """Listen for ever. A group that somebody else has is asked for again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            tasks.create_task(self._tell())
            while True:
                try:
                    ear = LogSocket(self._group)
                except (OSError, KernelRefused) as error:
                    if not self._problem:
                        log.warning("policy_log_deaf", error=str(error))
                    self._problem = str(error)
                    await asyncio.sleep(_AGAIN)
                    continue
                self._problem, self._expected = "", -1
                try:
                    await self._listen(ear)
                except OSError as error:
                    log.warning("policy_log_interrupted", error=str(error))
                finally:
                    ear.close()

    async def _listen(self, ear: LogSocket) -> None:
        """Raises OSError when the socket is of no more use."""
        loop = asyncio.get_running_loop()
        while True:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(ear.fileno(), _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(ear.fileno())
            for _ in range(_READS):
                before = ear.overruns
                found = ear.read()
                self._metrics.count("towpath_policy_log_overruns", by=ear.overruns - before)
                if found is None:
                    break
                for message in found:
                    self._take(message)
            await asyncio.sleep(_PAUSE)  # with a flood, so many messages in this time and no more

    def _take(self, message: LogMessage) -> None:
        if message.sequence >= 0:
            missed = (message.sequence - self._expected) & 0xFFFFFFFF if self._expected >= 0 else 0
            self._lose(missed if missed < _MARGIN else 0)
            self._expected = (message.sequence + 1) & 0xFFFFFFFF
        if len(self._waiting) >= _KEPT:
            self._lose(1)
            return
        self._waiting.append(message)
        self._came.set()

    def _lose(self, number: int) -> None:
        self._lost += number
        self._metrics.count("towpath_policy_log_lost", by=number)

    async def _write(self) -> None:
        """One by one, and others in between: a rule may have to be looked for among many."""
        while True:
            await self._came.wait()
            self._came.clear()
            batch = list(self._waiting)
            packets = [message.packet for message in batch if message.packet is not None]
            names = await self._book.names({a for seen in packets for a in (seen.source, seen.destination)})
            for _ in batch:
                message = self._waiting.popleft()
                judge = self._judge()
                if judge is None:
                    continue
                where = Where(self._node, self._local(), names, _interfaces(message))
                found = record(message, judge, where, time.time())
                if found is not None:
                    self._metrics.count("towpath_policy_log_records", found.action)
                    lines.info(EVENT, record=found)
                await asyncio.sleep(0)

    async def _tell(self) -> None:
        counters = RuleCounters()
        before = 0
        try:
            while True:
                await asyncio.sleep(_TELL)
                unsampled = self._unsampled(counters)
                more, before = max(0, unsampled - before), unsampled
                self._metrics.count("towpath_policy_log_unsampled", by=more)
                if more or self._lost:
                    lines.info(LOST, denials=more, messages=self._lost)
                    self._lost = 0
        finally:
            counters.close()

    def _unsampled(self, counters: RuleCounters) -> int:
        """Denied packets that were not told, ever since the chain was made: its last rule counts them all."""
        try:
            counted = counters.packets(TABLE, DENIED)
        except (OSError, KernelRefused) as error:
            log.debug("denials_not_counted", error=str(error))
            return 0
        *sampled, denied = [number or 0 for number in counted] or [0]
        return denied - sum(sampled) if sampled else 0


def _interfaces(message: LogMessage) -> dict[int, str]:
    """Those the packet came and leaves by, as far as they are still there."""
    found = {}
    for index in {message.came_by, message.leaves_by} - {0}:
        with suppress(OSError):
            found[index] = socket.if_indextoname(index)
    return found


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
