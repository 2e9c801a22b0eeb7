"""From probers' lines to series: what is known of a run at any moment. Pure; time is an argument."""

from collections.abc import Iterable, Iterator

import msgspec

from towpath.probe.plan import Kind, Plan, Probe
from towpath.probe.prober_lines import Ended, Line, Slots, Started
from towpath.probe.samples import INVALID, PENDING, BadChunk, Series, answered

_DECODER: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class Collection:
    """All probes of a run, with their slots by wall clock. Probes can be left out later on."""

    def __init__(self, plans: Iterable[Plan]) -> None:
        self.probes: dict[int, Probe] = {p.number: p for plan in plans for p in plan.probes}
        self.series: dict[int, Series] = {}
        self.left_out: dict[int, str] = {}
        self.started: set[str] = set()
        self.ended: set[str] = set()
        self.damaged = 0
        self.cpu_seconds = 0.0

    def take(self, line: bytes) -> None:
        """One line of a prober. What is none of ours (an interpreter's warning) is counted, not raised."""
        try:
            message = _DECODER.decode(line)
            match message:
                case Started():
                    self._start(message)
                case Slots():
                    self.series[message.probe].add(message)
                case Ended():
                    self.ended.add(message.prober)
                    self.cpu_seconds += message.cpu_s
        except (msgspec.DecodeError, BadChunk, KeyError):
            self.damaged += 1

    def _start(self, message: Started) -> None:
        self.started.add(message.prober)
        for number, start in message.starts.items():
            if number not in self.series:  # a log stream that is opened again begins anew
                self.series[number] = Series(start, self.probes[number].period)
        for number, why in message.unreachable.items():
            self.leave_out(number, f"no way to {self.probes[number].address}: {why}")

    def leave_out(self, number: int, why: str) -> None:
        """A probe that proves nothing here, and why."""
        self.left_out[number] = why

    def denied_answered(self, since: int) -> dict[int, bool]:
        """Denied probes: whether one was answered among the slots due after ``since`` (wall nanoseconds).

        Only those with at least three settled slots since then.
        """
        found = {}
        for probe, series in self.parts():
            if probe.kind.denied:
                values = [v for v in series.window(since, 1 << 63).values if v not in (INVALID, PENDING)]
                if len(values) >= 3:
                    found[probe.number] = any(answered(value) for value in values)
        return found

    def parts(self, begin: int = 0, end: int = 1 << 63) -> Iterator[tuple[Probe, Series]]:
        """Every probe that counts, with its slots from ``begin`` until before ``end``."""
        for number, series in self.series.items():
            if number not in self.left_out:
                whole = begin <= series.start and end == 1 << 63
                yield self.probes[number], series if whole else series.window(begin, end)

    def counting(self) -> list[int]:
        """The numbers of all probes that count."""
        return [number for number in self.series if number not in self.left_out]

    def denied(self, *kinds: Kind) -> list[int]:
        """The numbers of all denied probes (of ``kinds``, if given) that count."""
        wanted = kinds or (Kind.DENY_TCP, Kind.DENY_UDP)
        return [n for n, p in self.probes.items() if p.kind in wanted and n not in self.left_out]

    def silent(self) -> list[int]:
        """Probes that ought to be answered and never were."""
        return [
            probe.number
            for probe, series in self.parts()
            if not probe.kind.denied and not any(True for _ in series.latencies())
        ]

    def settled_until(self) -> int:
        """The moment (wall nanoseconds) until which every probe that counts has reported."""
        return min((s.start + len(s.values) * s.period for _, s in self.parts()), default=0)
