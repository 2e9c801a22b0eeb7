"""The node's addresses as an operator wants to see them: how many, whose, what is wrong, and the mending."""

import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

import msgspec

from towpath.agent.attachments import Attachments
from towpath.api.core import Pod
from towpath.cni.errors import CniError
from towpath.desired.names import POD_PREFIX
from towpath.ipam.allocate import make_range
from towpath.ipam.audit import Evidence, Key, Problem, RunningPod, Stored, audit, gone_here
from towpath.ipam.errors import AddressError, BadRange, LeaseStoreError
from towpath.ipam.store import LeaseStore
from towpath.ipam.usage import Usage, counted, exhausted_in
from towpath.log import get_logger
from towpath.model.attachment import Attachment
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net
from towpath.model.state import NetState

log = get_logger("towpath.ipam")

_SAMPLE_EVERY = 600.0
_OVER = ("Succeeded", "Failed")
_NEARLY = 95.0


class Addresses:
    """``pods`` are all of the cluster's, None where there is none or they are not known yet; ``now`` is wall
    clock time in seconds: the past outlives a boot.
    """

    def __init__(
        self,
        node_name: str,
        store: LeaseStore,
        attachments: Attachments,
        pods: Callable[[], Iterable[Pod] | None],
        networks: tuple[Net, ...],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._node, self._store, self._attachments = node_name, store, attachments
        self._pods, self.networks, self._now = pods, networks, now
        self._sampled = float("-inf")
        self._standing: tuple[Finding, ...] = ()

    # Figures.

    def usage(self) -> tuple[Usage, ...]:
        """How full the node's own ranges are: its podCIDRs, or its blocks."""
        settings, foreign = self._attachments.settings, self._attachments.foreign
        if settings.blocks is not None:
            return self.blocks()
        leased, held = self._store.leased(), self._store.held()
        found = []
        for cidr in settings.pod_cidrs:
            try:
                ranges = (make_range(cidr),)
            except BadRange:
                continue  # STATUS says so
            one = counted(ranges, leased, held, foreign, settings.reserved())
            found.append(self._foreseen(one))
        return tuple(found)

    def pools(self) -> tuple[Usage, ...]:
        """How full the pools are that all nodes share; none but in block mode."""
        blocks = self._attachments.settings.blocks
        return tuple(map(self._foreseen, blocks.figures.pools())) if blocks is not None else ()

    def blocks(self) -> tuple[Usage, ...]:
        """What the node has of blocks; nothing but in block mode."""
        blocks = self._attachments.settings.blocks
        return blocks.figures.blocks(self._attachments.foreign) if blocks is not None else ()

    def exhaustible(self) -> tuple[Usage, ...]:
        """What a pod may not start for the lack of: a node takes more blocks, but a pool has an end."""
        return self.pools() if self._attachments.settings.blocks is not None else self.usage()

    def leased_by_pool(self) -> dict[str, int] | None:
        """How many addresses of each pool this node's pods have; None but in block mode."""
        blocks = self._attachments.settings.blocks
        return blocks.figures.leased() if blocks is not None else None

    def _foreseen(self, one: Usage) -> Usage:
        left = exhausted_in(self._store.past(one.range), one.size - one.foreign, self._now())
        return msgspec.structs.replace(one, full_in=left)

    async def sample(self) -> None:
        """Remember how many are used now, every ten minutes. Raises LeaseStoreError."""
        now = self._now()
        if 0 <= now - self._sampled < _SAMPLE_EVERY:
            return
        self._sampled = now
        await self._store.sample({one.range: one.used for one in self.exhaustible()}, now)

    def namespaces(self) -> dict[str, int]:
        """How many addresses each namespace's pods have here; "" stands for what is no pod."""
        counts: dict[str, int] = {}
        for att in self._store.attachments():
            namespace = att.pod.namespace if att.pod is not None else ""
            counts[namespace] = counts.get(namespace, 0) + len(att.addresses)
        return counts

    def findings(self) -> list[Finding]:
        """What stands: ranges without room, and of the last look what the node does not mend by itself."""
        found = list(self._standing)
        return found + [_short(one, self._node) for one in self.exhaustible() if one.percent >= _NEARLY]

    # What is wrong.

    async def audit(self) -> tuple[tuple[Problem, ...], Evidence]:
        """Everything that is wrong now, and the evidence. Raises CniError: the kernel cannot be asked."""
        evidence, observed = await self._attachments.garbage.look()
        evidence = msgspec.structs.replace(
            evidence,
            node=self._node,
            routed=_routed(observed),
            pods=running_pods(self._pods()),
            here=self._here(),
            networks=self.networks,
        )
        stored = Stored(
            attachments=self._store.attachments(), leased=self._store.leased(), damaged=self._store.damaged
        )
        found = audit(stored, evidence)
        lasting = ("TP4013", "TP4014", "TP4015")  # of two pods by the API, ``Twins`` tells
        self._standing = tuple(p.finding for p in found if p.finding.code in lasting and p.key is not None)
        return found, evidence

    def _here(self) -> tuple[Net, ...]:
        settings = self._attachments.settings
        more = settings.blocks.here() if settings.blocks is not None else ()
        return (*settings.pod_cidrs, *more)

    async def mend(self) -> tuple[list[str], list[str]]:
        """Mend what can be; what was done and what could not be, a sentence each. Raises CniError."""
        done: list[str] = []
        refused: list[str] = []
        for problem in (await self.audit())[0]:
            if not problem.mend:
                continue
            words = ", ".join(map(str, problem.addresses))
            try:
                done.append(await self._mended(problem, words))
            except (CniError, LeaseStoreError, AddressError, ValueError) as error:
                refused.append(f"{words}: {error}")
        for sentence in done:
            log.info("lease_mended", what=sentence)
        return done, refused

    async def _mended(self, problem: Problem, words: str) -> str:
        if problem.mend == "release" and problem.key is not None:
            if not await self._attachments.garbage.collect(grace=0, only={problem.key}):
                raise ValueError("it is in use again")
            return f"{problem.finding.code} freed {words} of {problem.finding.object}"
        (address,) = problem.addresses
        if problem.mend == "forget":
            await self._store.forget(address)
            return f"{problem.finding.code} freed {address}, which nothing speaks for"
        if problem.key is None:
            raise ValueError("it is not known whose it is")
        await self._store.relist(address, problem.key)
        return f"{problem.finding.code} leased {address} to {problem.finding.object} again"

    async def release(self, address: Addr, *, force: bool) -> str:
        """Free an address that is in use by nobody; a sentence. ``force`` waives the API's proof, never the
        node's: what is wired is not freed. Raises CniError, LeaseStoreError, ValueError with the reason.
        """
        owner = self._store.leased().get(address)
        if owner is None:
            raise ValueError("is not leased on this node")
        att = self._store.get(*owner)
        if att is None or address not in att.addresses:
            problems, _ = await self.audit()
            if not any(p.mend == "forget" and address in p.addresses for p in problems):
                raise ValueError("is in use: a route leads to it, or by the API server a pod has it")
            await self._store.forget(address)
            return f"{address} is free"
        _, evidence = await self.audit()
        here = gone_here(att, self._store.boot_id, evidence.links, unlisted=owner in evidence.unlisted)
        whose = f"Pod/{att.pod.namespace}/{att.pod.name}" if att.pod else f"container {att.container_id[:13]}"
        if not here:
            raise ValueError(f"is {whose}'s, whose link {att.host_ifname} is there: delete the pod instead")
        if owner not in evidence.over:
            if not force:
                raise ValueError(f"is {whose}'s: {here}, but the API server has the pod (see --force)")
            await self._attachments.detach(att)
        elif not await self._attachments.garbage.collect(grace=0, only={owner}):
            raise ValueError(f"is {whose}'s, and in use again")
        return f"{address} is free; it was {whose}'s"

    def leases(self) -> Iterable[tuple[Addr, Key, Attachment | None]]:
        """Every lease, by address."""
        leased = self._store.leased()
        for address in sorted(leased, key=lambda a: (a.version, int(a))):
            yield address, leased[address], self._store.get(*leased[address])


def _short(one: Usage, node: str) -> Finding:
    """There is no room, or next to none. Of a pool no figures: with every pod all nodes would say others."""
    full = one.free == 0
    text = f"{one.used} of {one.size} addresses are leased, {one.free} are free"
    fix = "move pods to other nodes, or free what is leaked (towpath ipam check)"
    if one.pool:
        text = "no address is free" if full else f"{_NEARLY:.0f} per cent of its addresses are in use"
        fix = "make another IPPool, or free what is leaked (towpath ipam check)"
    return Finding(
        code="TP4001" if full else "TP4018",
        object=f"IPPool/{one.pool} ({one.range})" if one.pool else f"{one.range} of Node/{node}",
        message=text,
        fix=fix,
        severity="error" if full else "warning",
    )


def _routed(observed: NetState) -> Mapping[Addr, tuple[str, ...]]:
    found: dict[Addr, set[str]] = {}
    for route in observed.routes:
        if route.dst.prefixlen == route.dst.max_prefixlen and route.dev.startswith(POD_PREFIX):
            found.setdefault(route.dst.network_address, set()).add(route.dev)
    return {address: tuple(sorted(links)) for address, links in found.items()}


def running_pods(pods: Iterable[Pod] | None) -> tuple[RunningPod, ...] | None:
    """Those that use the pod network and are not over; None where they are not known."""
    if pods is None:
        return None
    return tuple(
        RunningPod(
            name=f"{pod.metadata.namespace}/{pod.metadata.name}",
            uid=pod.metadata.uid,
            node=pod.spec.node_name,
            addresses=tuple(_addresses(pod)),
            created=pod.metadata.creation_timestamp or "",
            leaving=pod.metadata.deletion_timestamp is not None,
        )
        for pod in pods
        if not pod.spec.host_network and pod.status.phase not in _OVER
    )


def _addresses(pod: Pod) -> Iterable[Addr]:
    for text in dict.fromkeys([*(one.ip for one in pod.status.pod_ips or ()), pod.status.pod_ip]):
        try:
            yield ip_address(text)
        except ValueError:
            continue  # not there yet
