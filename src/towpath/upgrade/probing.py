"""Probes while nodes have their turns: one run for the whole upgrade, and of it what touches a node.

A question touches a node when it is asked there, when its target is there, or when it goes to the Service,
behind which any node may stand.
"""

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address

import msgspec

from towpath.kube.client import Client
from towpath.probe import cluster
from towpath.probe.account import INVALID_LIMIT, Total, account
from towpath.probe.levels import Judgement, Level, judge
from towpath.probe.paths import SERVICE, Found, Wanted
from towpath.probe.plan import Plan as ProberPlan
from towpath.probe.run import ProbeRun
from towpath.probe.source import Outside
from towpath.probe.strips import Parts, by_path, states, text
from towpath.upgrade.evidence import PathSeen
from towpath.upgrade.gates import Verdict
from towpath.upgrade.plan import Measure

ORDER = (Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE)
CONTROL = 5.0  # seconds before anything is done, with which latency is compared
_DAY = 86400.0
_FEW = 10  # nodes that are probed from at full rate
_SETTLES_WITHIN = 8.0
_STRIP = 80  # characters
_DRAWN = 30  # nodes; with more, only paths that lost something are drawn: the journal is one ConfigMap


class RollProbes:
    """``async with RollProbes(…) as probes``: from then on questions are asked, until the end."""

    def __init__(
        self, client: Client, measure: Measure, outside: Outside | None, say: Callable[[str], None]
    ) -> None:
        run = cluster.new_run(measure.image, measure.python, _DAY)
        self._client, self._measure = client, measure
        self._run = ProbeRun(client, run, outside=outside, say=say)
        self._began = 0

    async def __aenter__(self) -> "RollProbes":
        """Raises ApiError, ProbeFailed."""
        now = datetime.datetime.now(datetime.UTC)
        for name, over in (await cluster.leftovers(self._client, now)).items():
            if over:
                await cluster.remove(self._client, name)
        await self._run.__aenter__()
        try:
            found = await self._run.deploy()
            slower = self._measure.slower * max(1.0, len(found.targets) / _FEW)
            await self._run.start(Wanted(origins=tuple(found.targets), seconds=_DAY, slower=slower))
            self._began = self._run.begun
            await asyncio.sleep(CONTROL)
        except BaseException as failed:
            await self._run.__aexit__(type(failed), failed, failed.__traceback__)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._run.__aexit__(None, None, None)

    async def gate(self, node: str, since: float) -> Verdict:
        """What the paths that touch a node have lost ``since`` its pod was replaced (seconds since 1970)."""
        end = time.time_ns()
        await self._settled(end)
        if gone := self._run.lost_probers:
            return Verdict("untold", f"probers have gone: {', '.join(gone)}")
        touching = touches(self._run.plans, self._run.found, node)
        parts = [part for part in self._run.collection.parts() if part[0].number in touching]
        begin = max(self._began, int(since * 1e9))
        control = [(p, s.window(self._began, self._began + int(CONTROL * 1e9))) for p, s in parts]
        seen = [(p, s.window(begin, end)) for p, s in parts]
        late = self._began / 1e9 - since
        note = f"; probing began {late:.0f} s after its pod was replaced" if late > 1 else ""
        found = verdict(seen, control, begin, end, self._measure, note)
        return found if len(self._run.found.targets) <= _DRAWN else _without_fine_strips(found)

    async def _settled(self, until: int) -> None:
        """Until all that was asked before has been told of."""
        deadline = asyncio.get_running_loop().time() + _SETTLES_WITHIN
        while self._run.collection.settled_until() < until and not self._run.lost_probers:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.1)


def _without_fine_strips(found: Verdict) -> Verdict:
    paths = tuple(
        one if one.lost or one.opened else msgspec.structs.replace(one, strip="") for one in found.paths
    )
    return found._replace(paths=paths)


def touches(plans: Sequence[ProberPlan], found: Found, node: str) -> frozenset[int]:
    """Numbers of the probes that concern a node."""
    here = {ip_address(address) for table in (found.targets, found.nodes) for address in table.get(node, ())}
    return frozenset(
        probe.number
        for plan in plans
        for probe in plan.probes
        if plan.prober in (f"pod {node}", f"node {node}")
        or probe.path == SERVICE
        or ip_address(probe.address) in here
    )


def verdict(seen: Parts, control: Parts, begin: int, end: int, measure: Measure, note: str = "") -> Verdict:
    """Every path against the level wanted. Pure; ``begin`` and ``end`` in nanoseconds of the wall clock."""
    before = by_path(control)
    paths, worst, why = [], Level.H0, list[str]()
    blind = []
    for key, parts in by_path(seen).items():
        one = judge(account(parts), _control(before, key), budget_ms=measure.budget_ms)
        paths.append(_path(key, parts, one, begin, end))
        where = f"{key[0]} IPv{key[1]}"
        if one.level is Level.UNKNOWN:
            blind.append(f"{where}: {'; '.join(one.why)}")
            continue
        if ORDER.index(one.level) > ORDER.index(worst):
            worst = one.level
        if ORDER.index(one.level) > ORDER.index(Level(measure.level)):
            why.append(f"{where} {one.level}: {'; '.join(one.why)}")
    if why:
        told = f"worse than {measure.level}: {' | '.join(why)}{note}"
        return Verdict("fail", told, tuple(paths))
    if not paths or len(blind) == len(paths):
        told = "; ".join(blind[:3]) or "no probe touches it"
        return Verdict("untold", f"probes prove nothing: {told}{note}", tuple(paths))
    if blind:
        return Verdict("untold", f"too many invalid samples: {'; '.join(blind[:3])}{note}", tuple(paths))
    return Verdict("pass", f"{worst} on {len(paths)} paths, {measure.level} wanted{note}", tuple(paths))


def _control(before: Mapping[tuple[str, int], Parts], key: tuple[str, int]) -> Total | None:
    parts = before.get(key)
    total = account(parts) if parts else None
    return total if total is not None and total.invalid_share <= INVALID_LIMIT else None


def _path(key: tuple[str, int], parts: Parts, one: Judgement, begin: int, end: int) -> PathSeen:
    total = account(parts)
    return PathSeen(
        path=key[0],
        family=key[1],
        begin=round(begin / 1e9, 3),
        end=round(end / 1e9, 3),
        sent=total.sent,
        lost=total.lost,
        gap_ms=round(total.gap_ms, 1),
        opened=total.opened,
        level=one.level.value,
        strip=text(states(parts, begin, end, _STRIP)),
    )
