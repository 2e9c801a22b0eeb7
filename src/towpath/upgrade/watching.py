"""What is seen when an upgraded network is looked at again and again, against how it was before. Pure.

Most failures after an upgrade of a pod network were Ready while they were broken, or came a day later: a
token that was never renewed (calico#8777), custom resources and blocks that vanished after two days
(rke2#10168). So it is objects, logs, restarts and traffic that are compared, not readiness alone.
"""

from collections.abc import Iterator

import msgspec

from towpath.inventory.node_report import Flow
from towpath.model.finding import Finding

_MEMORY_FACTOR, _MEMORY_MB = 1.5, 50.0
_CPU_FACTOR, _CPU_MILLI = 2.0, 100.0
_RESENT_FEW, _RESENT_SHARE = 20, 0.02  # segments, and of all that were sent
_DROPS = 10.0  # packets a second
_TUNNEL_BUSY, _TUNNEL_SHARE = 100_000.0, 0.05  # bytes a second
_LATENCY_FACTOR, _LATENCY_MS = 2.0, 5.0


class PodSeen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A pod of the network. ``why`` it is not ready; ``lines``: of its log since the last look, and what they

    mean. ``memory_mb``, ``cpu_milli`` 0 where the cluster does not tell (no metrics.k8s.io).
    """

    node: str
    name: str
    ready: bool
    restarts: int
    why: str = ""
    lines: tuple[tuple[str, str], ...] = ()
    memory_mb: float = 0.0
    cpu_milli: float = 0.0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a short run of probes lost. ``level`` as ``probe.levels``; latency in ms."""

    level: str
    sent: int
    lost: int
    gap_ms: float
    opened: int
    p999_ms: float
    where: tuple[str, ...] = ()


class NodeSeen(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A node that was looked at itself. ``wrong``: what its own state shows, code and sentence."""

    node: str
    flow: Flow | None = None
    wrong: tuple[tuple[str, str], ...] = ()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look. ``objects``: custom resources by definition; ``left_out``: what was refused, and why."""

    at: float
    pods: tuple[PodSeen, ...]
    objects: dict[str, int]
    traffic: Traffic | None = None
    nodes: tuple[NodeSeen, ...] = ()
    left_out: tuple[str, ...] = ()


def findings(before: Sample, now: Sample) -> list[Finding]:
    """What is worse than it was; of each pod and each kind of object by itself."""
    return [*_pods(before, now), *_objects(before, now), *traffic(before, now), *_nodes(before, now)]


def _pods(before: Sample, now: Sample) -> Iterator[Finding]:
    usual = {pod.node: pod for pod in before.pods}
    restarts = {pod.name: pod.restarts for pod in before.pods}
    for pod in now.pods:
        where = f"Pod/{pod.name} on {pod.node}"
        if not pod.ready:
            yield _finding("TP7602", where, f"is not ready: {pod.why}", "kubectl describe it; read its log")
        if more := pod.restarts - restarts.get(pod.name, 0):
            again = f"was started again {more} times since"
            yield _finding("TP7601", where, again, "read the log of the container before (kubectl logs -p)")
        yield from said(pod)
        was = usual.get(pod.node)
        if was is not None:
            yield from _resources(was, pod, where)
    for node in sorted(usual.keys() - {pod.node for pod in now.pods}):
        yield _finding("TP7602", f"Node/{node}", "has no pod of the network any more", "look at the node")


def said(pod: PodSeen, severity: str = "error") -> Iterator[Finding]:
    """What its log says that is known to mean trouble."""
    for line, means in pod.lines:
        told = f"says {line!r}: {means}"
        fix = "do what the line's meaning asks for"
        yield _finding("TP7603", f"Pod/{pod.name} on {pod.node}", told, fix, severity)


def _resources(was: PodSeen, pod: PodSeen, where: str) -> Iterator[Finding]:
    if was.memory_mb and pod.memory_mb > max(was.memory_mb * _MEMORY_FACTOR, was.memory_mb + _MEMORY_MB):
        grown = f"holds {pod.memory_mb:.0f} MB, and held {was.memory_mb:.0f} MB before"
        yield _finding("TP7607", where, grown, "watch whether it grows on; report it", "warning")
    if was.cpu_milli and pod.cpu_milli > max(was.cpu_milli * _CPU_FACTOR, was.cpu_milli + _CPU_MILLI):
        busy = f"uses {pod.cpu_milli:.0f}m of a processor, and used {was.cpu_milli:.0f}m before"
        yield _finding(
            "TP7608", where, busy, "see what it writes anew all the time (towpath verify)", "warning"
        )


def _objects(before: Sample, now: Sample) -> Iterator[Finding]:
    for name, count in sorted(before.objects.items()):
        has = now.objects.get(name)
        if has is None:
            told = f"the definition is gone, and {count} objects with it"
            yield _finding("TP7609", name, told, "restore it from the backup (towpath restore)")
        elif has < count / 2 and count - has > 1:
            told = f"{count} objects before, {has} now"
            yield _finding(
                "TP7609", name, told, "find out who deleted them; towpath restore --dry-run shows them"
            )


def traffic(before: Sample | None, now: Sample) -> Iterator[Finding]:
    """What probes lost, what they were let through, and what takes longer than it did."""
    seen = now.traffic
    if seen is None:
        return
    where = ", ".join(seen.where[:3]) or "probes"
    if seen.opened:
        told = f"{seen.opened} questions that a policy denies were answered"
        yield _finding(
            "TP7605", where, told, "towpath policy explain; roll back if policies are not enforced"
        )
    if seen.lost and seen.level not in ("H0", "unknown"):
        told = f"{seen.lost} of {seen.sent} lost, longest gap {seen.gap_ms:.0f} ms"
        yield _finding("TP7604", where, told, "towpath probe --html shows when and where")
    was = before.traffic if before is not None else None
    if was is not None and seen.p999_ms > max(was.p999_ms * _LATENCY_FACTOR, was.p999_ms + _LATENCY_MS):
        told = f"the 99.9th percentile is {seen.p999_ms:.1f} ms, and was {was.p999_ms:.1f} ms before"
        yield _finding("TP7606", where, told, "look whether nodes are busier than before", "warning")


def _nodes(before: Sample, now: Sample) -> Iterator[Finding]:
    was = {one.node: one for one in before.nodes}
    for one in now.nodes:
        where, known = f"Node/{one.node}", was.get(one.node)
        for code, told in one.wrong:
            if known is None or code not in {there for there, _ in known.wrong}:
                yield _finding("TP7613", where, f"{code} {told}", f"towpath explain {code}")
        if one.flow is not None and known is not None and known.flow is not None:
            yield from _flow(known.flow, one.flow, where)


def _flow(was: Flow, flow: Flow, where: str) -> Iterator[Finding]:
    share, before = flow.resent / max(1, flow.segments), was.resent / max(1, was.segments)
    if flow.resent >= _RESENT_FEW and share > max(before * 2, before + _RESENT_SHARE):
        told = (
            f"{share:.1%} of the TCP segments of it and its pods are sent again, and {before:.1%} were before"
        )
        yield _finding(
            "TP7610", where, told, "look for loss on the way: ip -s link, ethtool -S, the underlay"
        )
    drops, usual = flow.dropped / flow.seconds, was.dropped / was.seconds
    if drops > max(usual * 2, usual + _DROPS):
        told = (
            f"{drops:.0f} packets a second are dropped by devices and conntrack, and {usual:.0f} were before"
        )
        yield _finding("TP7611", where, told, "ip -s link; conntrack -S; is nf_conntrack_max reached?")
    rate, carried = flow.tunnel_bytes / flow.seconds, was.tunnel_bytes / was.seconds
    if carried > _TUNNEL_BUSY and rate < carried * _TUNNEL_SHARE:
        told = f"its tunnels carry {rate / 1000:.0f} kB/s, and carried {carried / 1000:.0f} kB/s before"
        yield _finding("TP7612", where, told, "are its pods idle, or cut off? towpath probe tells", "warning")


def _finding(code: str, where: str, message: str, fix: str, severity: str = "error") -> Finding:
    return msgspec.convert(
        {"code": code, "object": where, "message": message, "fix": fix, "severity": severity}, Finding
    )
