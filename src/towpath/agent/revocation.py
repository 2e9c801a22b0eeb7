"""Cuts flows of pods under ``revocation: enforce`` that policy denies by now, when the firewall has changed.

First the flows are put into the drop set, both directions, then their conntrack entries are deleted: whoever
dies in between leaves flows that are dropped until the set forgets them, and the next agent finds their
entries and deletes them. Conntrack is read in a thread, and flows are judged a few at a time, so that CNI
calls do not wait.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from towpath.agent.attach_netlink import NodeNetlink
from towpath.agent.metrics import Metrics
from towpath.agent.revocation_scope import Touched, touched
from towpath.desired import revocation
from towpath.desired.policy_chains import Verdicts
from towpath.desired.revocation import Flow
from towpath.desired.ruleset import TABLE
from towpath.kernel.conntrack_flows import FlowTable, Tracked
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.net import Addr
from towpath.model.nft import Key, NftSet
from towpath.model.op import Op
from towpath.policy.causes import Cause, Packet
from towpath.policy.ir import Direction

log = get_logger("towpath.revocation")

_AT_ONCE = 50  # flows judged, or cut, before others have their turn, if that takes no longer than:
_TURN = 0.003  # seconds
_REST = 0.2  # seconds between two looks: changes come in swarms
_AGAIN = 1.0
_LEAST, _MOST = 10, 86400  # seconds that a flow stays cut
_KEPT = 65536  # flows that are cut at a time; beyond, only their entries are deleted
_TOLD = 20  # lines a look


class Judge(Protocol):
    """The compiled policies (``policy.engine.Engine``)."""

    def allows(self, endpoint: str, direction: Direction, packet: Packet) -> bool | None:
        """None: the endpoint is not known."""
        ...

    def cause(self, endpoint: str, direction: Direction, packet: Packet) -> Cause | None:
        """What decides."""
        ...


class Cutter(Protocol):
    """The kernel, as far as this is concerned (``kernel.linux.LinuxKernel``)."""

    def apply(self, ops: Sequence[Op]) -> None:
        """Raises KernelRefused."""
        ...

    def remaining(self, table: str, decl: NftSet) -> dict[Key, int]:
        """Raises KernelRefused."""
        ...


class View(NamedTuple):
    """What policy says now. ``local``: this node's pods by address, ``enforced``: whose flows it cuts;
    ``behind``: pods by interface, ``verdicts`` what these are judged by.
    """

    judge: Judge
    local: Mapping[Addr, str]
    enforced: frozenset[str]
    behind: Mapping[str, str]
    verdicts: Callable[[str], Verdicts]


class Denial(NamedTuple):
    """Why a flow is cut."""

    direction: Direction
    cause: Cause


Tell = Callable[[Flow, Direction, Cause], Awaitable[None]]


class Revocation:
    """``view`` None while policies are not known. The kernel is changed under ``lock``.

    To be made in the thread whose namespace it is about. Raises OSError.
    """

    def __init__(
        self,
        view: Callable[[], View | None],
        kernel: Cutter,
        lock: asyncio.Lock,
        tell: Tell,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._view, self._kernel, self._lock = view, kernel, lock
        self._tell, self._metrics, self._clock = tell, metrics, clock
        self._table, self._routes = FlowTable(), NodeNetlink()
        self._thread = ThreadPoolExecutor(1, "revocation")
        self._touched = Touched()
        self._stirred = asyncio.Event()
        self._before: frozenset[str] = frozenset()
        self._cut: dict[Flow, float] = {}
        self._left_over = False

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
        self._table.close()
        self._routes.close()

    def applied(self, operations: Iterable[Op]) -> None:
        """The firewall is as desired; this is what was done for it, if anything."""
        view = self._view()
        if view is None:
            self._touched.everything = True
        else:
            self._touched.add(touched(operations, view.behind, view.verdicts))
        self._stirred.set()

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            concerned, self._touched = self._touched, Touched()
            rest = _REST
            try:
                await self._look(concerned)
            except (KernelRefused, OSError) as error:
                log.warning("flows_not_cut", error=str(error))
                self._touched.add(concerned)
                self._stirred.set()
                rest = _AGAIN
            await asyncio.sleep(rest)

    async def _look(self, concerned: Touched) -> None:
        """Raises KernelRefused, OSError: then nothing is lost, and it is to be done again."""
        view = self._view()
        if view is None or not (view.enforced or self._cut or self._before):
            return
        if not self._left_over and view.enforced:
            self._recall()
        if concerned.everything:
            await self._renew()
        await self._lift()
        new = view.enforced - self._before
        endpoints = set(view.enforced) if concerned.everything else view.enforced & concerned.endpoints | new
        addresses = {address for address, name in view.local.items() if name in endpoints}
        if view.enforced:
            addresses |= concerned.peers
        if addresses:
            await self._search(addresses)
        self._before = view.enforced

    async def _search(self, addresses: set[Addr]) -> None:
        loop = asyncio.get_running_loop()
        tracked = await loop.run_in_executor(self._thread, self._table.flows, addresses)
        told = judged = 0
        while judged < len(tracked):
            view = self._view()
            if view is None:
                return
            doomed: list[tuple[Tracked, Denial]] = []
            until = self._clock() + _TURN
            for one in tracked[judged : judged + _AT_ONCE]:
                if (why := self._denied(view, one.flow)) is not None:
                    doomed.append((one, why))
                judged += 1
                if self._clock() > until:
                    break
            if doomed:
                await self._end([one for one, _ in doomed])
            for one, why in doomed[: max(0, _TOLD - told)]:
                await self._tell(one.flow, why.direction, why.cause)
            told += len(doomed)
            await asyncio.sleep(0)
        if told:
            log.info("flows_cut", flows=told)

    async def _end(self, doomed: Sequence[Tracked]) -> None:
        """Into the set, then out of conntrack."""
        now = self._clock()
        until = {one.flow: now + min(max(one.seconds, _LEAST), _MOST) for one in doomed}
        room = _KEPT - len(self._cut)
        if len(until) > room:
            log.warning("too_many_flows_cut", kept=_KEPT, only_forgotten=len(until) - room)
            until = dict(list(until.items())[: max(room, 0)])
        # Remembered before, so that nothing stays cut of which nobody knows.
        self._cut.update(until)
        await self._apply(revocation.cut(((flow, _ms(end - now)) for flow, end in until.items()), TABLE))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._table.delete, doomed)
        self._metrics.count("towpath_flows_revoked", by=len(doomed))

    async def _apply(self, update: Op) -> None:
        async with self._lock:
            self._kernel.apply([update])

    def _recall(self) -> None:
        """What an agent before us has cut. Of which direction a flow was is not known any more."""
        now = self._clock()
        for decl in revocation.WITH_PORTS.values():
            for key, ms in self._kernel.remaining(TABLE, decl).items():
                flow = revocation.flow_of(key)
                if flow is not None:
                    self._cut.setdefault(flow, now + ms / 1000)
        self._left_over = True

    async def _renew(self) -> None:
        """Should the table have been made anew, the sets are empty."""
        now = self._clock()
        left = [(flow, _ms(end - now)) for flow, end in self._cut.items() if end > now]
        for start in range(0, len(left), _AT_ONCE):
            await self._apply(revocation.cut(left[start : start + _AT_ONCE], TABLE))

    async def _lift(self) -> None:
        """What policy allows again, what nobody wants cut any more, and what was of pods that are gone."""
        now = self._clock()
        flows = list(self._cut)
        for start in range(0, len(flows), _AT_ONCE):
            view = self._view()
            if view is None:
                return
            part = flows[start : start + _AT_ONCE]
            over = [flow for flow in part if self._cut[flow] <= now]
            free = [flow for flow in part if self._cut[flow] > now and self._is_free(view, flow)]
            if free:
                await self._apply(revocation.lifted(free, TABLE))
            for flow in (*over, *free):
                del self._cut[flow]
            await asyncio.sleep(0)

    def _is_free(self, view: View, flow: Flow) -> bool:
        """Of a flow that was cut before, either direction may have been the flow's."""
        back = Flow(flow.destination, flow.source, flow.protocol, flow.second, flow.first)
        again = back in self._cut and self._denied(view, back) is not None
        return not again and self._denied(view, flow) is None

    def _denied(self, view: View, flow: Flow) -> Denial | None:
        """By the egress of who began it, or the ingress of who answers, where it cuts flows.

        A pod always reaches itself, and the node its pods.
        """
        if flow.source == flow.destination:
            return None
        sides: tuple[tuple[Direction, Addr, Addr], ...] = (
            ("egress", flow.source, flow.destination),
            ("ingress", flow.destination, flow.source),
        )
        for direction, own, peer in sides:
            name = view.local.get(own)
            if name is None or name not in view.enforced:
                continue
            packet = Packet(own, peer, flow.protocol, flow.first, flow.second)
            if view.judge.allows(name, direction, packet) is not False:
                continue
            if direction == "ingress" and peer not in view.local and self._routes.is_local(peer):
                continue
            why = view.judge.cause(name, direction, packet)
            return Denial(direction, why or Cause(allowed=False))
        return None


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
