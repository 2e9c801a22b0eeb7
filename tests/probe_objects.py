"""Probes and series for the tests of ``towpath.probe``."""

from collections.abc import Iterable, Sequence

from towpath.probe.plan import MS, PERIODS, TIMEOUTS, Kind, Plan, Probe
from towpath.probe.samples import LOST, Series

GOOD = 400  # microseconds


def probe(kind: Kind = Kind.UDP, number: int = 0, **more: object) -> Probe:
    """A probe of a kind, on some path."""
    fields: dict[str, object] = {
        "number": number,
        "kind": kind,
        "path": "pod → pod, cross node",
        "family": 4,
        "address": "127.0.0.1",
        "port": 7001,
        "period": PERIODS[kind],
        "timeout": TIMEOUTS[kind],
        "name": "a.example",
    }
    return Probe(**{**fields, **more})  # type: ignore[arg-type]


def series(values: Iterable[int], kind: Kind = Kind.UDP, start: int = 0) -> Series:
    """Slots of a kind's period."""
    return Series(start, PERIODS[kind], values)


def run_of(good: int, lost: int, after: int, kind: Kind = Kind.UDP) -> Series:
    """Well, then not, then well again."""
    return series([GOOD] * good + [LOST] * lost + [GOOD] * after, kind)


def plan(probes: Sequence[Probe], seconds: float) -> Plan:
    """What a prober is given."""
    return Plan(prober="test", seconds=seconds, probes=tuple(probes))


__all__ = ["GOOD", "MS", "plan", "probe", "run_of", "series"]
