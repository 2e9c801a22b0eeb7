"""A probe run from first object to last: targets, probers, the two controls, the measured time.

Before anything counts, the denied port is open and its probes must be answered (they can see something), then
a NetworkPolicy closes it and they must fall silent (there is something to lose). A denied probe that fails
either control proves nothing and is left out, by name.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

import msgspec

from towpath.kube.client import Client
from towpath.kube.errors import ApiError
from towpath.probe import cluster
from towpath.probe.cluster import ProbeFailed
from towpath.probe.collect import Collection
from towpath.probe.objects import Run
from towpath.probe.paths import Found, Wanted, plans
from towpath.probe.plan import Kind, Plan
from towpath.probe.source import Outside, PodLog, Source

_CONTROL_WITHIN, _START_WITHIN, _STOP_WITHIN, _SILENT_WITHIN = 20.0, 180.0, 15.0, 5.0
_SETUP = 240.0  # seconds that a prober's plan is longer than the measured time


class ProbeRun:
    """``async with ProbeRun(…) as probing: await probing.start(…)``; then ``collection`` fills by itself.

    ``begun`` is the moment (wall nanoseconds) from which on samples count.
    """

    def __init__(
        self,
        client: Client,
        run: Run,
        *,
        outside: Outside | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self.run, self._outside, self._say = client, run, outside, say
        self._sources: list[Source] = []
        self._readers: list[asyncio.Task[None]] = []
        self.collection = Collection(())
        self.plans: Sequence[Plan] = ()
        self.found = Found(targets={}, nodes={})
        self.begun = 0

    async def __aenter__(self) -> "ProbeRun":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Whatever happened: nothing of the run stays in the cluster."""
        for reader in self._readers:
            reader.cancel()
        if self._outside:
            await self._outside.close()
        self._say("removing the run's namespace")
        try:
            gone = await asyncio.shield(cluster.remove(self._client, self.run.namespace))
        except ApiError as refused:
            self._say(f"{refused}; `towpath probe clean` removes {self.run.namespace} later")
        else:
            if not gone:
                self._say(f"namespace {self.run.namespace} is still being deleted")

    async def deploy(self) -> Found:
        """Targets, until they are Ready. Raises ApiError, ProbeFailed."""
        host = self._outside is None
        await cluster.put_targets(self._client, self.run, host=host)
        if self._outside:
            await self._outside.answer()
        found = await cluster.find(self._client, self.run, host=host, say=self._say)
        outside = self._outside.addresses if self._outside else ()
        self.found = msgspec.structs.replace(found, outside=outside)
        return self.found

    async def start(self, wanted: Wanted) -> None:
        """Probers, then both controls; returns at the moment that counts. Raises ApiError, ProbeFailed."""
        try:
            planned = plans(self.found, msgspec.structs.replace(wanted, seconds=wanted.seconds + _SETUP))
        except ValueError as nothing:
            raise ProbeFailed(str(nothing)) from nothing
        self.plans = tuple(planned.values())
        self.collection = Collection(self.plans)
        for (kind, node), plan in planned.items():
            if kind == "outside":
                assert self._outside is not None  # noqa: S101 (else no plan has that place)
                self._sources.append(await self._outside.ask(plan))
            else:
                name = await cluster.put_prober(
                    self._client, self.run, node, plan, host_network=kind == "node"
                )
                self._sources.append(PodLog(self._client, self.run.namespace, name))
        self._readers = [asyncio.create_task(self._read(source)) for source in self._sources]
        await self._until(lambda: len(self.collection.started) == len(self.plans), _START_WITHIN, "probers")
        if self._outside:
            self._outside.be_on_time()
        await self._controls()
        await self._leave_out_silent()
        self.begun = time.time_ns()

    async def _read(self, source: Source) -> None:
        async for line in source.lines():
            self.collection.take(line)

    async def _until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not done():
            if asyncio.get_running_loop().time() > deadline:
                have, want = len(self.collection.started), len(self.plans)
                raise ProbeFailed(f"{what}: {have} of {want} started within {seconds:.0f} s")
            self._say(f"{what}: {len(self.collection.started)} of {len(self.plans)} started")
            await asyncio.sleep(0.1)

    async def _controls(self) -> None:
        if not self.collection.denied():
            await asyncio.sleep(1.0)
            return
        self._say("control: the denied port is still open, and must answer")
        await self._open_control()
        await cluster.close_denied_port(self._client, self.run, self.found.outside)
        self._say("control: the policy is there, and the port must fall silent")
        await self._closed_control()

    async def _open_control(self) -> None:
        """Over TCP alone: see ``gate``, which holds UDP back until this is over."""

        def unanswered() -> list[int]:
            seen = self.collection.denied_answered(0)
            return [n for n in self.collection.denied(Kind.DENY_TCP) if not seen.get(n)]

        await self._settle(unanswered, "not answered even without a policy: it sees nothing")

    async def _closed_control(self) -> None:
        """Nothing answered any more, looking at the last second that was reported."""
        first = time.time_ns()

        def not_silent() -> list[int]:
            begin = max(first, self.collection.settled_until() - 1_000_000_000)
            seen = self.collection.denied_answered(begin)
            return [n for n in self.collection.denied() if seen.get(n) is not False]

        await self._settle(not_silent, "answered in spite of the policy: not enforced here")

    async def _settle(self, wrong: Callable[[], list[int]], why: str) -> None:
        """Wait until nothing is wrong; what still is after a while is left out."""
        deadline = asyncio.get_running_loop().time() + _CONTROL_WITHIN
        while numbers := wrong():
            if asyncio.get_running_loop().time() > deadline:
                for number in numbers:
                    self.collection.leave_out(number, why)
                return
            await asyncio.sleep(0.1)

    async def _leave_out_silent(self) -> None:
        """What was never answered cannot be lost later: there is no way, or nobody at its end."""
        deadline = asyncio.get_running_loop().time() + _SILENT_WITHIN
        while silent := self.collection.silent():
            if asyncio.get_running_loop().time() > deadline:
                for number in silent:
                    self.collection.leave_out(number, "never answered, before anything was done")
                return
            await asyncio.sleep(0.1)

    @property
    def lost_probers(self) -> list[str]:
        """Probers whose lines ended although nobody stopped them."""
        return [s.name for s, r in zip(self._sources, self._readers, strict=True) if r.done()]

    async def stop(self) -> None:
        """End the probers and wait for their last lines."""
        self._say("stopping the probers")
        for source in self._sources:
            with suppress(ApiError):
                await source.stop()
        if self._readers:
            await asyncio.wait(self._readers, timeout=_STOP_WITHIN)
