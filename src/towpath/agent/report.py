"""What this node publishes about itself: flannel's annotations, its report, NetworkUnavailable."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from towpath.api.core import Node
from towpath.api.report import STATUS, VERIFY, AgentReport, agent_report
from towpath.desired.annotations import node_patch
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import NODES
from towpath.log import get_logger

log = get_logger("towpath.report")

_MOST_LINES = 50
_ANSWER_STANDS = 30.0
_PODS_ALONE_EVERY = 60.0


def shortened(lines: Iterable[str]) -> tuple[str, ...]:
    """At most 50 lines: a Node object has room for 256 KiB of annotations, other people's included."""
    everything = tuple(lines)
    if len(everything) <= _MOST_LINES:
        return everything
    return (*everything[:_MOST_LINES], f"and {len(everything) - _MOST_LINES} more")


class Verification:
    """Answers ``towpath.dev/verify``: a nonce is answered once, with what was found when it was seen.

    The answer stands for half a minute, even though what was found is mended at once.
    """

    def __init__(self) -> None:
        self.nonce = ""
        self._found: tuple[str, ...] = ()
        self._until = 0.0

    def asked(self, node: Node | None) -> str:
        """The nonce that waits for an answer, empty if none does."""
        if node is None:
            return ""
        wanted = (node.metadata.annotations or {}).get(VERIFY, "")
        if not self.nonce and (report := agent_report(node)) is not None:
            self.nonce = report.verified  # answered by the agent before us
        return wanted if wanted != self.nonce else ""

    def answer(self, nonce: str, found: Iterable[str], now: float) -> None:
        """Remember what was found."""
        self.nonce, self._found, self._until = nonce, tuple(found), now + _ANSWER_STANDS

    def drift(self, now: float) -> tuple[str, ...]:
        """What the last answer found, while it stands."""
        return self._found if now < self._until else ()


class Publisher:
    """Writes the own Node when there is something new to say.

    Every agent of the cluster watches every Node, so a change of the number of pods, or of their addresses,
    alone is told at most once a minute. ``monotonic`` is the clock of that minute, ``now`` that of the
    condition's stamps.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        monotonic: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._node_name = client, node_name
        self._monotonic, self._now = monotonic, now
        self._answered: Node | None = None
        self._based_on = ""
        self._published_at = -_PODS_ALONE_EVERY

    async def publish(
        self, node: Node, annotations: dict[str, str], report: AgentReport, *, network_up: bool
    ) -> bool:
        """Patch if the Node says something else. False: it did not work, or something was put off."""
        if self._answered is not None and node.metadata.resource_version == self._based_on:
            node = self._answered  # the reflector has not seen our own change yet
        put_off = False
        known = agent_report(node)
        if known is not None and self._only_pods_differ(known, report):
            put_off = self._monotonic() - self._published_at < _PODS_ALONE_EVERY
            report = known if put_off else report
        wanted = annotations | {STATUS: msgspec.json.encode(report).decode()}
        patch = node_patch(node, wanted, self._now(), network_up=network_up)
        if patch is None:
            return not put_off
        based_on = node.metadata.resource_version
        try:
            self._answered = await self._client.patch(
                NODES, self._node_name, patch, type="strategic", subresource="status"
            )
        except KubeError as e:
            log.warning("node_not_patched", error=str(e))
            return False
        self._based_on, self._published_at = based_on, self._monotonic()
        log.info("node_patched", keys=sorted(patch.get("metadata", {}).get("annotations", {})))
        return not put_off

    @staticmethod
    def _only_pods_differ(known: AgentReport, report: AgentReport) -> bool:
        counts = {"pods": report.pods, "leased": report.leased}
        return known != report and msgspec.structs.replace(known, **counts) == report
