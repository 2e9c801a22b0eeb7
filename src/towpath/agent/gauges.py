"""The agent's gauges, read off its parts when somebody scrapes."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from towpath import __version__
from towpath.agent.drops import dropped
from towpath.agent.ethtool import tx_checksum
from towpath.agent.garbage import Garbage
from towpath.agent.metrics import Sample
from towpath.agent.offload import OffloadProbe
from towpath.agent.readiness import Readiness
from towpath.ipam.usage import Usage
from towpath.kube.reflector import Reflector
from towpath.model.finding import Finding


def sample(
    readiness: Readiness,
    reflectors: Mapping[str, Reflector[Any]],
    probe: OffloadProbe | None,
    overlay: Iterable[str],
    pods: int,
    drift: int,
    owned: bool,
    findings: Callable[[], Iterable[Finding]],
    ranges: Iterable[Usage],
    blocks: Iterable[Usage],
    garbage: Garbage,
    contests: int,
) -> Iterable[Sample]:
    """All gauges of ``metrics.METRICS``."""
    yield Sample("towpath_build_info", (__version__,), 1)
    yield Sample("towpath_pods", (), pods)
    yield Sample("towpath_drift", (), drift)
    yield Sample("towpath_table_owned", (), float(owned))
    for condition, reason in readiness.conditions.items():
        yield Sample("towpath_ready", (condition,), float(not reason))
    for kind, reflector in reflectors.items():
        yield Sample("towpath_api_up", (kind,), float(reflector.listed.is_set() and not reflector.problem))
        yield Sample("towpath_api_events", (kind,), reflector.events)
        yield Sample("towpath_api_lists", (kind,), reflector.relists)
    counts: dict[tuple[str, str], int] = {}
    for finding in findings():
        counts[finding.code, finding.severity] = counts.get((finding.code, finding.severity), 0) + 1
    for labels, number in counts.items():
        yield Sample("towpath_findings", labels, number)
    yield from _filled("towpath_ipam_addresses", ranges)
    yield from _filled("towpath_ipam_block_addresses", blocks)
    yield from dropped()
    yield Sample("towpath_ipam_garbage", (), len(garbage.candidates))
    yield Sample("towpath_ipam_collected", (), garbage.collected)
    yield Sample("towpath_ipam_conflicts", (), contests)
    for device in overlay:
        with suppress(OSError):
            yield Sample("towpath_offload_on", (device,), float(tx_checksum(device)))
    if probe is not None:
        for (device, peer), verdict in probe.verdicts.items():
            yield Sample("towpath_offload_verdict", (device, peer, verdict), 1)


def _filled(metric: str, ranges: Iterable[Usage]) -> Iterable[Sample]:
    for one in ranges:
        for state in ("used", "held", "foreign", "reserved", "free"):
            yield Sample(metric, (one.range, state), getattr(one, state))
        if one.full_in is not None:
            yield Sample("towpath_ipam_exhausted_seconds", (one.range,), one.full_in)
