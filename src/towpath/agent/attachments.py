"""Attaches pods and detaches them: what the CNI calls mean on this node.

Order of ADD: whose pod, a durable lease, the link, the pod's side of it, the node's side, and in one nftables
transaction the right to send. DEL goes the other way round, the lease last. So whatever a crash cuts off, the
row of the lease says that there may be something to remove, and removing what is not there succeeds.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from towpath.agent.admission import Admission
from towpath.agent.attach_check import broken_results
from towpath.agent.attach_errors import explained, refusal, unwirable
from towpath.agent.attach_plan import attachment, host_end, requested, result
from towpath.agent.attach_pods import PodDirectory, identify
from towpath.agent.attach_settings import AttachSettings
from towpath.agent.attach_turns import Turns
from towpath.agent.attach_wiring import InterfaceTaken, Wiring
from towpath.agent.garbage import Garbage
from towpath.agent.pod_wishes import hardware_address
from towpath.agent.recovery import is_recovered
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Result
from towpath.desired.hostports import conflicts
from towpath.desired.names import container_ifname, host_ifname
from towpath.ipam.allocate import RangeSet
from towpath.ipam.errors import AddressError, LeaseStoreError
from towpath.ipam.store import Choice, Key, LeaseStore
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import Attachment, PodRef
from towpath.model.finding import Finding
from towpath.model.net import Addr

log = get_logger("towpath.cni")


class Attachments:
    """Implements ``cni.request.Handler``.

    ``routed`` tells whether the kernel has a route to an address, so that one that nobody leased but somebody
    uses is not given out. ``kernel_lock`` keeps reconciliation and us from working on a half-made state.
    ``admission`` says what a new pod is allowed.
    """

    def __init__(
        self,
        store: LeaseStore,
        wiring: Wiring,
        pods: PodDirectory | None,
        settings: AttachSettings,
        kernel_lock: asyncio.Lock,
        routed: Callable[[Addr], bool],
        admission: Admission,
    ) -> None:
        self.settings = settings
        self._admission = admission
        self._store, self._wiring, self._pods = store, wiring, pods
        self._kernel_lock, self._routed = kernel_lock, routed
        self._turns = Turns()
        self._wired: dict[Key, Attachment] = {}
        self._adding: set[Key] = set()
        self._leaving: set[Key] = set()
        self._probing: asyncio.Task[None] | None = None
        self._netns = Path("/proc/self/ns/net").stat().st_ino
        self.garbage = Garbage(store, wiring, pods, self._busy, self._collect, settings.lease_grace)
        """Leases whose DEL never came."""
        self.foreign: set[Addr] = set()
        """Addresses passed over because the kernel routes them for somebody who leased none."""
        self.adopt()

    def adopt(self) -> None:
        """Take over what the store says of this boot, after it was opened. What is being detached keeps its
        row to the last, and is nobody's any more.
        """
        found = {(a.container_id, a.ifname): a for a in self._store.attachments()}
        self._wired = {
            key: a
            for key, a in found.items()
            if a.boot_id == self._store.boot_id and key not in self._leaving
        }

    def current(self) -> tuple[Attachment, ...]:
        """What reconciliation has to keep in the kernel. Ask with the kernel lock held.

        A pod is without the addresses that are contested.
        """
        contested = self.settings.contested()
        if not contested:
            return tuple(self._wired.values())
        return tuple(_without(att, contested) for att in self._wired.values())

    def findings(self) -> tuple[Finding, ...]:
        """What an operator should know about addresses on this node."""
        found = []
        if self._store.problem:
            fix = "see the message; the node takes no pods until then"
            found.append(_finding("TP4004", f"lease store {self._store.path}", self._store.problem, fix))
        for path in self._store.aside():
            text = "the lease store was damaged; what the pods on the node have was read off the kernel"
            fix = "find out what happened to the disk, then delete the file"
            found.append(_finding("TP4006", str(path), text, fix))
        for container_id, ifname in self._store.damaged:
            text = f"the lease of {ifname} cannot be read; its address stays taken"
            found.append(_finding("TP4005", f"container {container_id}", text, "delete the pod"))
        for address in sorted(self.foreign, key=lambda a: (a.version, int(a))):
            text = "a route of the node leads to it, but no lease says whose it is"
            found.append(_finding("TP4002", f"address {address}", text, f"ip route get {address}"))
        return tuple(found)

    def knows(self, container_id: str, ifname: str) -> bool:
        """Whether an interface is attached, or may be."""
        return self._store.get(container_id, ifname) is not None

    # CNI.

    async def add(self, r: Request) -> Result:
        """Lease addresses, wire the pod, let it send; or raise CniError and leave nothing."""
        assert r.descriptors is not None  # noqa: S101 - the server answers BAD_NETNS itself
        if os.fstat(r.descriptors.netns).st_ino == self._netns:
            raise CniError(ErrorCode.BAD_NETNS, f"CNI_NETNS {r.netns} is the node's own network namespace")
        _check_chain(r)
        sets = self.settings.sets(r)
        pod = await identify(r, self._pods)
        key = (r.container_id, r.ifname)
        async with self._turns.of(host_end(r, pod)):
            self._adding.add(key)
            try:
                att = await self._again(r) or await self._lease(r, pod, sets)
                try:
                    await self._wire(att, r.descriptors)
                except Exception as error:
                    await self._take_back(att)
                    raise unwirable(att, error) from error
            finally:
                self._adding.discard(key)
        return result(att, r)

    async def delete(self, r: Request) -> None:
        """Undo an ADD, finished or not; success whatever is left of it."""
        known = self._store.get(r.container_id, r.ifname)
        host = known.host_ifname if known else self._host_end_of(r)
        async with self._turns.of(host), self._departure((r.container_id, r.ifname)):
            att = self._store.get(r.container_id, r.ifname)
            if att is not None:
                await self._undo(att)
                return
            if (lost := self._recovered(host)) is not None:
                await self._undo(lost)
                await explained(self._wiring.make_way(host))  # what shapes it is not known to be there
                return
            # Made by a Towpath whose lease store is lost, or by Canal. Another container of the same pod may
            # be behind the name by now.
            if not any(other.host_ifname == host for other in self._store.attachments()):
                await explained(self._wiring.make_way(host))
            await explained(self._store.release(r.container_id, r.ifname))

    async def check(self, r: Request, *, rerouted: bool = False) -> None:
        """Compare the kernel with what ADD promised and name every difference.

        ``rerouted``: another network of the pod has the default route by now.
        """
        if r.config.disable_check:
            return
        att = self._wired.get((r.container_id, r.ifname)) or self._recovered(self._host_end_of(r))
        if att is None:
            raise CniError(
                ErrorCode.UNKNOWN_CONTAINER, f"container {r.container_id} has no interface {r.ifname} of ours"
            )
        try:
            async with self._kernel_lock:
                broken = self._wiring.differences(att, r, rerouted=rerouted)
        except KernelRefused as error:
            raise CniError(ErrorCode.INTERNAL, "cannot look at the kernel's state", str(error)) from error
        broken += broken_results(att, r)
        if broken:
            raise CniError(
                ErrorCode.CHECK_FAILED,
                f"{r.ifname} of container {r.container_id} is not as ADD left it",
                "; ".join(broken),
            )

    async def status(self, r: Request) -> None:
        """Whether ADD could work now, from memory."""
        if self._store.problem:
            self._probe()
            raise CniError(ErrorCode.UNAVAILABLE, "no lease can be made durable", self._store.problem)
        if self.settings.not_ready:
            raise CniError(ErrorCode.UNAVAILABLE, "the node is not ready for pods", self.settings.not_ready)
        try:
            self.settings.sets(r)
        except CniError as error:
            raise CniError(ErrorCode.UNAVAILABLE, error.msg, error.details) from error

    async def gc(self, r: Request) -> None:
        """Undo every attachment of the network that the runtime does not list. Goes on after errors.

        In a cluster that is one proof of two: where the API server says that the pod is there, it waits.
        """
        if r.config.disable_gc:
            return
        if r.config.valid_attachments is None:
            raise CniError(
                ErrorCode.BAD_CONFIG,
                "GC without a list of valid attachments",
                "to take this for an empty list would detach every pod of the network",
            )
        left_out = self.garbage.mark(r.config.name, r.config.valid_attachments)
        if self._pods is None:  # nobody else to ask
            await self._collect(left_out)
        else:
            await self.garbage.collect(grace=0, only={(a.container_id, a.ifname) for a in left_out})

    async def detach(self, att: Attachment) -> None:
        """Undo one attachment that is known to be used by nobody. Raises CniError."""
        await self._collect([att])

    # The parts.

    def _busy(self) -> frozenset[Key]:
        return frozenset(self._adding | self._leaving)

    async def _again(self, r: Request) -> Attachment | None:
        """The attachment of an earlier attempt at the same call, with the kernel's part of it removed.

        The shim tries again when an agent died on it. Anything else that has a lease already is a second ADD,
        but for a container that outlived a reboot (podman keeps its ID): nothing of its first life is left.
        """
        att = self._store.get(r.container_id, r.ifname)
        if att is None:
            return None
        if att.boot_id != self._store.boot_id:
            await explained(self._store.release(r.container_id, r.ifname))
            return None
        if not r.request_id or att.request_id != r.request_id:
            raise CniError(
                ErrorCode.BAD_ENVIRONMENT,
                f"CNI_IFNAME {r.ifname} is taken",
                f"container {r.container_id} was attached to {att.network} before; DEL comes first; TP2003",
            )
        await explained(self._unwire(att))
        return att

    async def _lease(self, r: Request, pod: PodRef | None, sets: tuple[RangeSet, ...]) -> Attachment:
        """A new attachment, on the disk. The pod's earlier container makes way, as with Calico.

        Its link has the name that the new one needs; the kubelet starts a second sandbox for a pod only when
        the first is to go.
        """
        host = host_end(r, pod)
        self._check_only(r)
        for other in [a for a in self._store.attachments() if a.host_ifname == host]:
            log.info("attachment_replaced", container=other.container_id, by=r.container_id, host=host)
            await self._undo(other)
        try:
            choices = await self._choose(r, sets)
            att = attachment(r, pod, (c.address for c in choices), self.settings.mtu, self._store.boot_id)
            if r.pod is not None and (mac := hardware_address(r.pod.metadata.annotations or {})):
                att = replace(att, mac=mac)
            self._check_ports(att)
            await self._store.add(att, choices)
        except (AddressError, LeaseStoreError) as error:
            raise refusal(error) from error
        return att

    async def _choose(self, r: Request, sets: tuple[RangeSet, ...]) -> tuple[Choice, ...]:
        """Free addresses, until anything else gets to run. Raises AddressError, LeaseStoreError, CniError."""
        if self.settings.blocks is not None:
            return await self.settings.blocks.choose(r, requested(r), self._is_foreign)
        return self._store.choose(sets, requested(r), self._is_foreign, self.settings.reserved())

    def _check_only(self, r: Request) -> None:
        """What a container sends leaves by one interface; a second would take the routes from the first."""
        for other in self._store.attachments():
            if other.container_id == r.container_id and other.boot_id == self._store.boot_id:
                raise CniError(
                    ErrorCode.BAD_ENVIRONMENT,
                    f"CNI_IFNAME {r.ifname}: container {r.container_id} has {other.ifname} already",
                    f"it is attached to {other.network}; a container has one interface of Towpath's",
                )

    def _recovered(self, host: str) -> Attachment | None:
        """The attachment behind a link whose lease was lost, and with it the container's ID."""
        known = (att for att in self._store.attachments() if att.host_ifname == host and is_recovered(att))
        return next(known, None)

    def _host_end_of(self, r: Request) -> str:
        """The host's end for a DEL without a lease, from what the runtime says of the pod, if anything."""
        namespace, name = r.args.get("K8S_POD_NAMESPACE", ""), r.args.get("K8S_POD_NAME", "")
        if self._pods is not None and namespace and name:
            return host_ifname(namespace, name, r.ifname)
        return container_ifname(r.container_id, r.ifname)

    def _is_foreign(self, address: Addr) -> bool:
        if owner := self.settings.elsewhere(address):
            log.warning("address_used_elsewhere", address=str(address), by=owner)
            return True
        if not self._routed(address):
            self.foreign.discard(address)
            return False
        if address not in self.foreign:
            log.warning("address_routed_without_lease", address=str(address))
            self.foreign.add(address)
        return True

    def _check_ports(self, att: Attachment) -> None:
        if not att.ports:
            return
        others = (a for a in self._store.attachments() if a.boot_id == self._store.boot_id)
        for holder, loser, key in conflicts((*others, att)):
            if loser is att:
                owner = f"{holder.pod.namespace}/{holder.pod.name}" if holder.pod else holder.container_id
                port = " ".join(str(field) for field in key)
                raise CniError(
                    ErrorCode.TRY_LATER, f"host port {port} is taken", f"{owner} publishes it; TP2002"
                )

    async def _wire(self, att: Attachment, descriptors: PodDescriptors) -> None:
        """Make it real. A link that has the name on the node but no lease is somebody's leftover and goes."""
        for attempt in (1, 2):
            try:
                async with self._kernel_lock:
                    verdicts = self._admission.verdicts((*self._wired.values(), att), att)
                    self._wiring.make(att, descriptors, verdicts)
                    self._wired[att.container_id, att.ifname] = att
                break
            except InterfaceTaken:
                if attempt == 2 or not await self._wiring.make_way(att.host_ifname):
                    raise
        if None in verdicts:
            await self._admission.enforce(att)
        await self._wiring.settled(att, descriptors)

    async def _undo(self, att: Attachment) -> None:
        async with self._departure((att.container_id, att.ifname)):
            await explained(self._unwire(att))
            await explained(self._store.release(att.container_id, att.ifname))

    @asynccontextmanager
    async def _departure(self, key: Key) -> AsyncIterator[None]:
        """While this lasts, whoever reads the store does not take the attachment for one to keep."""
        entered = key not in self._leaving
        self._leaving.add(key)
        try:
            yield
        finally:
            if entered:
                self._leaving.discard(key)

    async def _unwire(self, att: Attachment) -> None:
        self._wired.pop((att.container_id, att.ifname), None)
        async with self._kernel_lock:
            self._wiring.shut(att)
        await self._wiring.remove(att)

    async def _take_back(self, att: Attachment) -> None:
        """Undo after a failure that is about to be reported; a failure of this is for DEL to mend."""
        try:
            await self._undo(att)
        except CniError as error:
            log.error("undo_failed", container=att.container_id, ifname=att.ifname, error=str(error))

    async def _collect(self, doomed: Iterable[Attachment]) -> None:
        async def one(att: Attachment) -> None:
            async with self._turns.of(att.host_ifname):
                if self._store.get(att.container_id, att.ifname) is att:
                    await self._undo(att)

        outcomes = await asyncio.gather(*(one(att) for att in doomed), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def _probe(self) -> None:
        """Find out in the background whether the store works again, once at a time."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._reopen())

    async def _reopen(self) -> None:
        try:
            await self._store.probe()
        except LeaseStoreError as error:
            log.warning("lease_store_unusable", error=str(error))
            return
        if not self._wired:
            self.adopt()


def _without(att: Attachment, contested: frozenset[tuple[str, Addr]]) -> Attachment:
    uid = att.pod.uid if att.pod is not None else ""
    left = tuple(address for address in att.addresses if (uid, address) not in contested)
    return att if left == att.addresses else replace(att, addresses=left)


def _finding(code: str, what: str, message: str, fix: str) -> Finding:
    return Finding(code=code, object=what, message=message, fix=fix, severity="warning")


def _check_chain(r: Request) -> None:
    before = r.config.prev_result
    if before is not None and any(i.sandbox and i.name == r.ifname for i in before.interfaces):
        raise CniError(
            ErrorCode.BAD_CONFIG,
            f"a plugin before towpath-cni in the chain has made {r.ifname} already",
            "Towpath makes the pod's interface itself; put it first, or behind plugins that make none",
        )
