"""Leases whose DEL never came: found on two proofs, watched for a grace period, then freed.

The node's proof and the API server's (see ``ipam.audit``) must both stand for the whole period; whichever
falls ends it. Right before an address is freed both are looked at once more.
"""

from collections.abc import Awaitable, Callable, Iterable, Set

import msgspec

from towpath.agent.attach_pods import PodDirectory, why_over
from towpath.agent.attach_wiring import Wiring
from towpath.agent.recovery import is_recovered
from towpath.cni.errors import CniError, ErrorCode
from towpath.ipam.audit import Evidence, gone_here
from towpath.ipam.store import Key, LeaseStore
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.state import NetState

log = get_logger("towpath.ipam")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that nobody seems to need: the two proofs, and when (since boot, in seconds) both were seen."""

    attachment: Attachment
    here: str
    over: str
    since: float


class Garbage:
    """``busy`` are keys of calls under way; ``undo`` detaches and releases, and raises CniError for the first
    that it could not, having gone on; ``grace`` in seconds.
    """

    def __init__(
        self,
        store: LeaseStore,
        wiring: Wiring,
        pods: PodDirectory | None,
        busy: Callable[[], frozenset[Key]],
        undo: Callable[[Iterable[Attachment]], Awaitable[None]],
        grace: float,
    ) -> None:
        self._store, self._wiring, self._pods = store, wiring, pods
        self._busy, self._undo, self.grace = busy, undo, grace
        self._unlisted: dict[Key, Attachment] = {}
        self._since: dict[Key, float] = {}
        self._over_since: dict[Key, float] = {}
        self.candidates: tuple[Candidate, ...] = ()
        """What the last look found, waiting for the end of its grace period."""
        self.collected = 0
        """How many leases were freed so far."""

    def mark(self, network: str, valid: Iterable[Key]) -> tuple[Attachment, ...]:
        """The runtime's own list of a network's containers: proof against the rest of it, which is returned.

        What is being added is in no list yet.
        """
        listed = set(valid) | self._busy()
        for key in listed:
            self._unlisted.pop(key, None)
        left_out = [
            att
            for att in self._store.attachments()
            if att.network == network
            and (att.container_id, att.ifname) not in listed
            and not is_recovered(att)
        ]
        self._unlisted |= {(att.container_id, att.ifname): att for att in left_out}
        return tuple(left_out)

    async def look(self) -> tuple[Evidence, NetState]:
        """What kernel and API say of every lease now; candidates are brought up to date. Raises CniError."""
        try:
            observed = self._wiring.observed()
        except KernelRefused as error:
            raise CniError(ErrorCode.INTERNAL, "cannot look at the node's links", str(error)) from error
        links = frozenset(observed.links)
        now, over, found, busy = self._store.clock(), {}, [], self._busy()
        rows = {(att.container_id, att.ifname): att for att in self._store.attachments()}
        self._unlisted = {key: att for key, att in self._unlisted.items() if rows.get(key) is att}
        for key, att in rows.items():
            why = await self._why_over(att)
            if not why or key in busy:
                continue
            over[key] = why
            here = gone_here(att, self._store.boot_id, links, unlisted=key in self._unlisted)
            if here:
                since = self._since.get(key, now)
                found.append(Candidate(attachment=att, here=here, over=why, since=since))
        self._since = {(c.attachment.container_id, c.attachment.ifname): c.since for c in found}
        self._over_since = {key: self._over_since.get(key, now) for key in over}
        self.candidates = tuple(found)
        evidence = Evidence(
            node="",
            boot_id=self._store.boot_id,
            links=links,
            unlisted=frozenset(self._unlisted),
            over=over,
            lingering=frozenset(k for k, at in self._over_since.items() if now - at >= self.grace),
            due={key: max(0.0, self.grace - (now - at)) for key, at in self._since.items()},
            busy=busy,
        )
        return evidence, observed

    async def collect(self, *, grace: float | None = None, only: Set[Key] | None = None) -> int:
        """Free what both proofs have been against for ``grace`` seconds (by default, the setting); how many.

        ``only`` these, if given. Raises CniError for the first thing that could not be undone.
        """
        await self.look()
        wait, now = self.grace if grace is None else grace, self._store.clock()
        due = [
            c
            for c in self.candidates
            if now - c.since >= wait
            and (only is None or (c.attachment.container_id, c.attachment.ifname) in only)
        ]
        for c in due:
            log.info(
                "lease_collected",
                container=c.attachment.container_id,
                pod=str(c.attachment.pod),
                addresses=[str(a) for a in c.attachment.addresses],
                node_says=c.here,
                api_says=c.over,
            )
        try:
            await self._undo(c.attachment for c in due)
        finally:
            freed = [c for c in due if self._is_free(c.attachment)]
            self.collected += len(freed)
            self.candidates = tuple(c for c in self.candidates if c not in freed)
        return len(freed)

    def _is_free(self, att: Attachment) -> bool:
        return self._store.get(att.container_id, att.ifname) is None

    async def _why_over(self, att: Attachment) -> str:
        """Outside Kubernetes there is nobody to ask, so that the boot decides."""
        if att.pod is not None:
            return await why_over(att.pod, self._pods)
        rebooted = att.boot_id != self._store.boot_id
        return "it is no pod's" if rebooted or is_recovered(att) else ""
