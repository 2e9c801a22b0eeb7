"""What of ``towpath verify`` is seen in a live network only: its logs, and probes on every path."""

import time
from typing import NamedTuple

from towpath.catalogue import load
from towpath.cli.probe import Options, measure
from towpath.cli.upgrade_watch import traffic_of
from towpath.kube.client import Client
from towpath.kube.kinds import NODES
from towpath.lab.client import LabClient
from towpath.model.finding import Finding
from towpath.probe.cluster import ProbeFailed
from towpath.probe.levels import Level
from towpath.probe.plan import Kind
from towpath.upgrade import looking
from towpath.upgrade.watching import Sample, Traffic, said, traffic

LOOKED_BACK = 600.0  # seconds
_SECONDS, _SLOWER, _FEW = 10.0, 4.0, 10
Found = tuple[tuple[Finding, ...], tuple[str, ...]]


async def logs(client: Client) -> Found:
    """Lines of the last minutes that are known to mean trouble (perhaps it is over), and what is unread."""
    seen, unread = await looking.logs(client, load.builtin().known.log, time.time() - LOOKED_BACK)
    return tuple(finding for pod in seen for finding in said(pod, "warning")), unread


class Probed(NamedTuple):
    """``traffic`` None: there could be no probes, ``untold`` says why."""

    findings: tuple[Finding, ...]
    untold: tuple[str, ...]
    traffic: Traffic | None = None

    @property
    def words(self) -> str:
        """In a line."""
        if self.traffic is None:
            return "Probes: none"
        seen = self.traffic
        return f"Probes: {seen.level}, {seen.lost} of {seen.sent} lost, {seen.opened} denied ones answered"


async def probes(client: Client, image: str, lab: LabClient | None) -> Probed:
    """Ten seconds of all kinds of questions from every node: what is lost, what is let through.

    Works with any network. Raises KubeError, KeyboardInterrupt.
    """
    outside = None
    if lab is not None:
        from towpath.lab.outside import OutsideHost

        outside = OutsideHost(lab)
    nodes = [node.metadata.name for node in (await client.list(NODES)).items]
    options = Options(
        image=image,
        seconds=_SECONDS,
        control=0.0,
        origins=tuple(nodes),
        slower=_SLOWER * max(1.0, len(nodes) / _FEW),
        kinds=tuple(Kind),
        budget_ms=1000.0,
        title="verify",
        command=(),
    )
    try:
        result, _, interrupted = await measure(client, options, outside)
    except ProbeFailed as failed:
        return Probed((), (f"probes: {failed}",))
    if interrupted:
        raise KeyboardInterrupt
    unsure = [f"{one.path} IPv{one.family} {one.kind}: {one.why}" for one in result.left_out]
    if result.judgement.level is Level.UNKNOWN:
        unsure.append("probes: too many could not be sent in time, the machine is too busy")
    seen = traffic_of(result)
    worse = traffic(None, Sample(at=time.time(), pods=(), objects={}, traffic=seen))
    return Probed(tuple(worse), tuple(unsure), seen)
