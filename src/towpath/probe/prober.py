"""A prober: all probes of one network namespace, in one process and one thread.

It writes JSON lines: who it is and when each probe's slot 0 was due (wall clock), then chunks of settled
slots, at last that it ended. The timetable is absolute; a process that is stalled finds its missed slots due
all at once and marks them invalid.
"""

import gc
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from towpath.probe.ask import Asker, Loop
from towpath.probe.ask_tcp import Connect, Echo
from towpath.probe.ask_udp import FixedUdp, FreshUdp
from towpath.probe.clock import Timer, realtime_offset
from towpath.probe.gate import GatedUdp
from towpath.probe.plan import MS, Kind, Plan, Probe
from towpath.probe.priority import be_on_time
from towpath.probe.prober_lines import Ended, Slots, Started
from towpath.probe.recording import CHUNK, Recording
from towpath.probe.schedule import Schedule

HEAD_START = 500 * MS  # connections are made before the first slot
_SWEEP = 20 * MS
_CHUNK_TIME = 400 * MS

_ASKERS: dict[Kind, Callable[[Loop, Recording], Asker]] = {
    Kind.UDP: FixedUdp,
    Kind.UDP_FRESH: FreshUdp,
    Kind.ECHO: Echo,
    Kind.CONNECT: Connect,
    Kind.DNS: FreshUdp,
    Kind.DENY_TCP: Connect,
}


class Prober:
    """Carries out a plan. ``write`` takes one line without its end."""

    def __init__(self, plan: Plan, write: Callable[[bytes], None]) -> None:
        self._plan, self._write = plan, write
        self._encoder = msgspec.json.Encoder()
        self._loop, self._timer = Loop(), Timer()
        self._stopped = False
        now = time.monotonic_ns()
        self._start = now + HEAD_START
        self._end = self._start + int(plan.seconds * 1e9)
        self._askers: dict[int, Asker] = {}
        self._unreachable: dict[int, str] = {}
        self._swept, self._turn = now, 0
        for probe in plan.probes:
            self._open(probe)
        self._schedule = Schedule((asker.recording.probe for asker in self._askers.values()), self._start)
        self._loop.register(self._timer.fd, select.EPOLLIN, lambda _: self._timer.fired())

    def _open(self, probe: Probe) -> None:
        recording = Recording(probe, self._start)
        try:
            if probe.kind is Kind.DENY_UDP:
                self._askers[probe.number] = GatedUdp(self._loop, recording, self._sibling(probe))
            else:
                self._askers[probe.number] = _ASKERS[probe.kind](self._loop, recording)
        except OSError as no_way:
            self._unreachable[probe.number] = no_way.strerror or str(no_way)

    def _sibling(self, probe: Probe) -> Recording | None:
        """The same port over TCP."""
        for asker in self._askers.values():
            other = asker.recording.probe
            if other.kind is Kind.DENY_TCP and (other.path, other.address) == (probe.path, probe.address):
                return asker.recording
        return None

    def run(self) -> None:
        """Until the plan's end, or SIGTERM or SIGINT; then what is still open gets its last chance."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        offset = realtime_offset()
        starts = {n: asker.recording.start + offset for n, asker in self._askers.items()}
        self._say(Started(prober=self._plan.prober, starts=starts, unreachable=self._unreachable))
        gc.collect()
        gc.disable()  # a collection is a stall; nothing here makes cycles
        if self._askers:
            while not self._stopped and time.monotonic_ns() < self._end:
                self._round()
        self._finish()

    def stop_when_closed(self, fd: int) -> None:
        """End the run when ``fd`` (whoever gave the plan) is closed at the other end."""

        def heard(_: int) -> None:
            if not os.read(fd, 4096):
                self._loop.unregister(fd)
                self._stopped = True

        self._loop.register(fd, select.EPOLLIN, heard)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _round(self) -> None:
        """Wait until something is due or has come; read everything that came before anything is judged."""
        due = min(self._schedule.next_due, self._swept + _SWEEP)
        self._timer.set(due)
        now = self._loop.wait(due)
        for number, at in self._schedule.due(now):
            asker = self._askers[number]
            late = time.monotonic_ns() - at
            slot = asker.recording.open(late)
            if late <= asker.recording.probe.period:
                asker.send(slot)
        if now - self._swept >= _SWEEP:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        self._loop.drain()
        self._swept = now
        for asker in self._askers.values():
            asker.sweep(now)
        numbers = list(self._askers)
        for _ in range(max(1, len(numbers) // 10)):  # a few at a time: writing them all would be a stall
            self._turn = (self._turn + 1) % len(numbers)
            recording = self._askers[numbers[self._turn]].recording
            self._ship(recording, min(CHUNK, _CHUNK_TIME // recording.probe.period))

    def _ship(self, recording: Recording, least: int) -> None:
        chunk = recording.chunk(least=least)
        if chunk is not None:
            fields = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
            self._say(Slots(**fields))

    def _finish(self) -> None:
        """Answers under way may still come, for as long as a connection is waited for at most."""
        until = time.monotonic_ns() + 1000 * MS
        while time.monotonic_ns() < until and any(
            asker.recording.oldest_pending() is not None for asker in self._askers.values()
        ):
            due = time.monotonic_ns() + _SWEEP
            self._timer.set(due)
            self._loop.wait(due)
            for asker in self._askers.values():
                asker.sweep(time.monotonic_ns())
        for asker in self._askers.values():
            asker.recording.close()
            self._ship(asker.recording, 1)
            asker.close()
        self._say(Ended(prober=self._plan.prober, cpu_s=round(time.process_time(), 3)))

    def _say(self, line: Any) -> None:
        self._write(self._encoder.encode(line))


def run(plan: Plan, giver: int | None = None) -> None:
    """In this process's network namespace, to stdout; until ``giver`` (a descriptor) is closed, if given."""
    be_on_time()

    def write(line: bytes) -> None:
        os.write(1, line + b"\n")

    prober = Prober(plan, write)
    if giver is not None:
        prober.stop_when_closed(giver)
    prober.run()
