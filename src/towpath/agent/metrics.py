"""The agent's figures: plain numbers while it works, Prometheus' text when somebody asks.

``prometheus_client`` is imported at the first scrape, not at start: it costs 45 ms that an agent which comes
back from an upgrade has better uses for.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Metric

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Described(NamedTuple):
    """A metric's kind, help text and label names. Counters get ``_total`` appended on the wire."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = {
    "towpath_build_info": Described("gauge", "Constant 1, labelled with the version", ("version",)),
    "towpath_ready": Described("gauge", "Whether a condition of readiness holds", ("condition",)),
    "towpath_pods": Described("gauge", "Pod interfaces attached"),
    "towpath_drift": Described("gauge", "Operations that failed and are still to be done"),
    "towpath_findings": Described("gauge", "Findings by code", ("code", "severity")),
    "towpath_reconcile_runs": Described("counter", "Comparisons of kernel and desired state"),
    "towpath_reconcile_failures": Described("counter", "Comparisons that ended with something undone"),
    "towpath_reconcile_seconds": Described("histogram", "Time of a comparison with its operations"),
    "towpath_policy_seconds": Described("histogram", "Time of a change of policy until the kernel held it"),
    "towpath_operations": Described("counter", "Kernel operations carried out", ("operation",)),
    "towpath_repairs": Described("counter", "Operations that undid somebody else's change", ("operation",)),
    "towpath_table_owned": Described("gauge", "Whether others' flushes pass the agent's nftables table by"),
    "towpath_fail_open_seconds": Described("histogram", "Time from a flush of the table to its return"),
    "towpath_connections_forgotten": Described(
        "counter", "Connection entries of pods that nothing translated, deleted after a repair"
    ),
    "towpath_cni_requests": Described(
        "counter", "CNI calls by answer, code 0 is success", ("command", "code")
    ),
    "towpath_cni_seconds": Described("histogram", "Time of CNI calls inside the agent", ("command",)),
    "towpath_api_up": Described("gauge", "Whether the API server can be followed now", ("kind",)),
    "towpath_api_events": Described("counter", "Watch events received", ("kind",)),
    "towpath_api_lists": Described("counter", "Complete lists received", ("kind",)),
    "towpath_ipam_addresses": Described(
        "gauge", "Addresses of a range; free ones include those held back for a while", ("range", "state")
    ),
    "towpath_ipam_block_addresses": Described(
        "gauge", "Addresses that the node has of a block", ("range", "state")
    ),
    "towpath_ipam_exhausted_seconds": Described(
        "gauge", "Time until a range has none left, at today's pace", ("range",)
    ),
    "towpath_ipam_garbage": Described("gauge", "Leases that nobody needs, in their grace period"),
    "towpath_ipam_collected": Described("counter", "Leases freed that no DEL had released"),
    "towpath_ipam_conflicts": Described("gauge", "Pods' addresses that an older pod elsewhere has"),
    "towpath_dropped_packets": Described(
        "counter", "Packets the node's own rules dropped, by why", ("reason",)
    ),
    "towpath_policy_log_records": Described(
        "counter", "Packets of which a line was logged, by what became of them", ("action",)
    ),
    "towpath_policy_log_unsampled": Described("counter", "Denied packets that came too fast to be told"),
    "towpath_policy_log_lost": Described("counter", "Messages of the kernel's that could not be taken"),
    "towpath_policy_log_overruns": Described("counter", "Times the kernel's queue of them was full"),
    "towpath_flows_revoked": Described("counter", "Flows cut because policy denies them by now"),
    "towpath_offload_verdict": Described(
        "gauge", "Checksum offload towards a peer: constant 1 for the verdict", ("device", "peer", "verdict")
    ),
    "towpath_offload_on": Described("gauge", "Whether a device does checksums", ("device",)),
}


class Sample(NamedTuple):
    """A value read at scrape time."""

    name: str
    labels: tuple[str, ...]
    value: float


class Histogram:
    """Counts by bucket, not cumulative, and the sum in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds


class Metrics:
    """Counters and histograms kept here; gauges are handed over when somebody scrapes."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter of ``METRICS``."""
        self.counters[name, labels] += by

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Add to a histogram of ``METRICS``."""
        histogram = self.histograms.get((name, labels))
        if histogram is None:
            histogram = self.histograms[name, labels] = Histogram()
        histogram.observe(seconds)

    def render(self, gauges: Iterable[Sample] = ()) -> str:
        """Prometheus' text format, the process' own figures included. Slow the first time: use a thread."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(_Collector(self, gauges))
        return generate_latest(registry).decode()

    def families(self, gauges: Iterable[Sample]) -> Iterator["Metric"]:
        """Everything as prometheus_client's families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        families: dict[str, Any] = {}
        makers = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        for name, what in METRICS.items():
            families[name] = makers[what.kind](name, what.help, labels=what.labels)
        for (name, labels), value in list(self.counters.items()):
            families[name].add_metric(labels, value)
        for sample in gauges:
            families[sample.name].add_metric(sample.labels, sample.value)
        for (name, labels), histogram in list(self.histograms.items()):
            families[name].add_metric(labels, _cumulative(histogram), histogram.sum)
        yield from families.values()


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Iterable[Sample]) -> None:
        self._metrics, self._gauges = metrics, gauges

    def collect(self) -> Iterator["Metric"]:
        return self._metrics.families(self._gauges)


def _cumulative(histogram: Histogram) -> list[tuple[str, int]]:
    total, result = 0, []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += count
        result.append((bound, total))
    return result
