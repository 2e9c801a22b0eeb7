"""What an upgrade was and what it cost, as one value: from its plan and its journal. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from towpath.install.migration import TAKEN
from towpath.probe.levels import Level
from towpath.upgrade.audits import ImageAudit
from towpath.upgrade.evidence import GateSeen, PathSeen
from towpath.upgrade.journal import ENDED, Event, Journal, Mode, Record
from towpath.upgrade.plan import CheckSeen, Plan, Rehearsal
from towpath.upgrade.seen import Seen

SCHEMA = "towpath.dev/upgrade-report/v1"
Phase = Literal["replacing", "gates", "mending", "rolling back", "paused", "evicting"]
_LEVELS = [level.value for level in (Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE, Level.UNKNOWN)]
_COST = {
    "": "No traffic was probed during this upgrade, so nothing can be said of what it cost.",
    "H0": "Probes asked all the time, and nothing was lost.",
    "H1": "Something was lost, but for less than 200 ms: hardly anybody will have noticed.",
    "H2": "Traffic was interrupted, for no longer than was allowed.",
    "disruptive": "Traffic was interrupted for longer than was allowed, or traffic that a policy denies got "
    "through.",
    "unknown": "The probers did not get the processor in time: what they saw proves nothing.",
}
_TURN: frozenset[Event] = frozenset({"cordon", "touch", "passed", "gone", "failed", "restored"})
_ENDS: frozenset[Event] = frozenset({"passed", "gone", "failed", "restored", "pause"})


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time in a lane. Seconds after the beginning; ``what`` in words."""

    phase: Phase
    begin: float
    end: float
    what: str = ""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node: its turn, what became of it, and what its gates saw, the last try last.

    ``has``: new, old, other or none, of the images that its pod has now (unknown: nobody looked).
    """

    node: str
    reason: str
    has: str
    state: str
    why: str = ""
    spans: tuple[Span, ...] = ()
    gates: tuple[GateSeen, ...] = ()


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was lost, or let through."""

    node: str
    seen: PathSeen


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Times are RFC 3339 in UTC, ``seconds`` from the first record to the last (or to now, while it runs).

    ``level``: the worst that the probes saw; empty when nothing was probed. ``images``: container to image
    before and after; ``digests`` of the latter, as nodes pulled them. ``pauses``: when it stood still.
    """

    schema: str = SCHEMA
    daemonset: str
    source: str
    target: str
    cluster: str
    plan: str
    mode: Mode
    begun: str
    ended: str
    seconds: float
    level: str
    asked: int
    lost: tuple[Loss, ...]
    images: dict[str, tuple[str, str]]
    nodes: tuple[NodeReport, ...]
    pauses: tuple[Span, ...]
    checks: tuple[CheckSeen, ...]
    skipped: tuple[int, ...]
    audits: tuple[ImageAudit, ...]
    digests: dict[str, str]
    rehearsal: Rehearsal | None
    records: tuple[Record, ...]

    @property
    def verdict(self) -> str:
        """In a sentence, for somebody who reads no further."""
        passed = sum(node.state in ("passed", "gone") for node in self.nodes)
        match self.mode:
            case "done":
                return f"Upgraded: all {len(self.nodes)} nodes run {self.target} and passed their gates."
            case "rolled-back":
                return "Rolled back: every node runs what it ran before."
            case "aborted":
                return f"Aborted: {passed} of {len(self.nodes)} nodes have the new version and keep it."
            case "paused":
                return f"Standing still: {passed} of {len(self.nodes)} nodes are upgraded."
        return f"Under way: {passed} of {len(self.nodes)} nodes are upgraded."

    @property
    def cost(self) -> str:
        """What the probes saw of it, in a sentence."""
        if self.level == Level.H1.value and not self.lost:
            return "Probes asked all the time, and nothing was lost; some answers took longer than before."
        return _COST[self.level]


def report(plan: Plan, journal: Journal, seen: Seen | None, now: float) -> Report:
    """``seen``: the cluster as it is, if somebody looked; ``now`` (seconds since 1970) ends what goes on."""
    records = journal.records
    begin = records[0].at if records else now
    over = journal.mode in (*ENDED, "paused")
    end = records[-1].at if records and over else max(now, begin)
    nodes = tuple(
        _node(plan, step.node, step.reason, journal, seen, (begin, end)) for step in plan.nodes
    )  # fmt: skip
    paths = [Loss(node=r.node, seen=path) for r in records for gate in r.gates for path in gate.paths]
    return Report(
        daemonset=f"{plan.namespace}/{plan.daemonset}",
        source=plan.source,
        target=plan.target,
        cluster=plan.cluster,
        plan=plan.hash,
        mode=journal.mode,
        begun=stamp(begin),
        ended=stamp(end),
        seconds=round(end - begin, 3),
        level=worst(path.seen.level for path in paths),
        asked=sum(path.seen.sent for path in paths),
        lost=tuple(path for path in paths if path.seen.lost or path.seen.opened),
        images=plan.images,
        nodes=nodes,
        pauses=_pauses(journal, begin, end),
        checks=plan.checks,
        skipped=plan.skipped,
        audits=plan.audits,
        digests=plan.digests,
        rehearsal=plan.rehearsal,
        records=records,
    )


def stamp(at: float) -> str:
    """Seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def worst(levels: Iterable[str]) -> str:
    """Of levels as ``probe.levels`` names them; empty of none."""
    known = [level for level in levels if level in _LEVELS]
    return max(known, key=_LEVELS.index, default="")


def has(plan: Plan, images: Mapping[str, str] | None) -> str:
    """Which images a node's pod has: new, old, other, or none (no pod)."""
    if images is None:
        return "none"
    of = {name: images.get(name, "") for name in plan.images}
    return "new" if of == plan.after else "old" if of == plan.before else "other"


def stands(plan: Plan, seen: Seen, node: str) -> str:
    """``has`` of a node; where nodes go to another network, by the label that says whose it is."""
    pod = seen.pods.get(node)
    if plan.migration is None or seen.networks is None:
        return has(plan, pod.images if pod else None)
    label = seen.networks.labels.get(node)
    if label not in (None, TAKEN):
        return "other"
    return "new" if (label == TAKEN) == (plan.migration.direction == "takeover") else "old"


def _node(
    plan: Plan, node: str, reason: str, journal: Journal, seen: Seen | None, run: tuple[float, float]
) -> NodeReport:
    own = [record for record in journal.records if record.node == node]
    last = next((record for record in reversed(own) if record.event in _TURN), None)
    return NodeReport(
        node=node,
        reason=reason,
        has=stands(plan, seen, node) if seen is not None else "unknown",
        state=_state(journal, last),
        why=last.text if last else "",
        spans=tuple(_spans(own, journal, *run)),
        gates=next((record.gates for record in reversed(own) if record.gates), ()),
    )


def _state(journal: Journal, last: Record | None) -> str:
    """As of the node's last record; who was touched and then rolled back has nothing of its own to say so."""
    if last is None:
        return "waiting"
    if journal.mode == "rolled-back":
        return "rolled back"
    return "under way" if last.event in ("cordon", "touch") else last.event


def _spans(own: list[Record], journal: Journal, begin: float, end: float) -> Iterable[Span]:
    """A node's turn: its pod is replaced, then its gates look; when it failed, its old pod comes back."""
    for index, record in enumerate(own):
        following = own[index + 1] if index + 1 < len(own) else None
        until = following.at if following else _over(journal, record, end)
        start = record.at - begin
        if record.event == "cordon":
            yield Span(phase="evicting", begin=start, end=until - begin, what="new pods go elsewhere")
        if record.event == "touch":
            phase = _touched_for(journal, record)
            looked = sum(gate.seconds for gate in following.gates) if following else 0.0
            split = max(start, until - begin - looked)
            yield Span(phase=phase, begin=start, end=split, what="its pod is replaced")
            if following is not None and looked and following.event in _ENDS:
                what = "; ".join(f"{gate.gate}: {gate.state}" for gate in following.gates)
                yield Span(phase="gates", begin=split, end=until - begin, what=what)
        elif record.event == "failed" and following is not None:
            yield Span(phase="mending", begin=start, end=until - begin, what=f"failed: {record.text}")


def _over(journal: Journal, record: Record, end: float) -> float:
    """When a turn without a word at its end was over: the next that happened to anything."""
    return next((r.at for r in journal.records if r.at > record.at), end)


def _touched_for(journal: Journal, record: Record) -> Phase:
    before = [r for r in journal.records if r.at <= record.at and r.event != "touch"]
    mode = Journal(tuple(before)).mode
    return "rolling back" if mode == "back" else "mending" if mode == "mending" else "replacing"


def _pauses(journal: Journal, begin: float, end: float) -> tuple[Span, ...]:
    found: list[Span] = []
    since: Record | None = None
    for index, record in enumerate(journal.records):
        paused = Journal(journal.records[: index + 1]).mode == "paused"
        if paused and since is None:
            since = record
        elif not paused and since is not None:
            found.append(_pause(since, begin, record.at))
            since = None
    return (*found, _pause(since, begin, end)) if since is not None else tuple(found)


def _pause(since: Record, begin: float, end: float) -> Span:
    return Span(phase="paused", begin=since.at - begin, end=end - begin, what=since.text)
