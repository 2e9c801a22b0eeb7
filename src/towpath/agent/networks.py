"""Pods' networks beside the default one: what the CNI calls mean for them.

A CNI handler in front of ``Attachments``, which makes the default network's interface. A pod without extra
networks passes through at the price of two look-ups. For the others each call does what it says for every
attachment: ADD in order, the default network first; DEL backwards from the journal, whatever became of pod
and definition. If anything fails in ADD, all of it is undone; what DEL could not do stays in the journal, is
told to the runtime, and is tried again.
"""

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from towpath.agent.attach_pods import PodDirectory, PodLookupFailed, look_up, why_over
from towpath.agent.attach_turns import Turns
from towpath.agent.attachments import Attachments
from towpath.agent.network_chains import Chains
from towpath.agent.network_definitions import NetworkDefinitions, UnknownNetwork
from towpath.agent.network_due import Due
from towpath.agent.network_plugins import PluginFailed
from towpath.agent.network_telling import Telling
from towpath.api.core import Pod
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Result
from towpath.kernel.port import Kernel, KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import PodRef
from towpath.model.net import Net
from towpath.multinet.annotation import Selection
from towpath.multinet.choose import NONE, Choice, NetworkSettings, Wanted, choose, cluster_wide
from towpath.multinet.default_route import moved, not_moved
from towpath.multinet.derive import Call, call
from towpath.multinet.journal import Journal, JournalError, Row
from towpath.multinet.refusal import NetworkRefused
from towpath.multinet.status import Attached, network_status

log = get_logger("towpath.networks")

_READY_WITHIN = 0.5
_FAILURES = (PluginFailed, ConnectionError, JournalError)


class Networks:
    """Implements ``cni.request.Handler``.

    ``inside`` gives a pod's namespace; ``routed`` are the pod networks, which stay reachable by the default
    network whoever has the default route; ``clock`` tells seconds.
    """

    def __init__(
        self,
        inner: Attachments,
        journal: Journal,
        chains: Chains,
        definitions: NetworkDefinitions,
        telling: Telling,
        pods: PodDirectory,
        settings: NetworkSettings,
        inside: Callable[[PodDescriptors], Kernel],
        routed: Sequence[Net],
        boot_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._inner, self._journal, self._chains = inner, journal, chains
        self._definitions, self._telling, self._pods = definitions, telling, pods
        self._settings, self._inside, self._routed = settings, inside, routed
        self._boot_id = boot_id
        self._turns = Turns()
        self._adding: set[str] = set()
        self._due = Due(journal, self._detach, clock)
        self._served: dict[str, Call] = {}

    # CNI.

    async def add(self, r: Request) -> Result:
        """The default network's result, with all networks attached; or CniError, and nothing is."""
        pod = await self._pod(r)
        choice = await self._choose(r, pod)
        if choice == NONE and not self._journal.of(r.container_id):
            return await self._inner.add(r)
        self._adding.add(r.container_id)
        try:
            async with self._turns.of(r.container_id):
                return await self._add(r, pod, choice)
        finally:
            self._adding.discard(r.container_id)

    async def delete(self, r: Request) -> None:
        """Detach all; what cannot be is said, and stays in the journal for the next time."""
        if not self._journal:
            await self._inner.delete(r)
            return
        async with self._turns.of(r.container_id):
            rows = [row for row in self._journal.of(r.container_id) if row.main == r.ifname]
            failed = await self._detach_all(r, rows)
            await self._inner.delete(r)
        for row in rows:
            if row.pod is not None:
                self._telling.forget(row.pod)
        await self._due.retry(r)
        if failed:
            raise failed[0]

    async def check(self, r: Request) -> None:
        """The default network's interface, then every other; the first that is not as ADD left it is told."""
        rows = [row for row in self._journal.of(r.container_id) if row.main == r.ifname]
        if not any(row.instead for row in rows):
            await self._inner.check(r, rerouted=any(row.gateways for row in rows))
        if r.config.disable_check:
            return
        for row in rows:
            try:
                await self._chains.check(r, row)
            except (PluginFailed, ConnectionError) as error:
                raise _failure(ErrorCode.CHECK_FAILED, row.reference, row.call.ifname, error) from error

    async def status(self, r: Request) -> None:
        """Whether ADD could work now; without the networks that all pods get, it could not."""
        await self._inner.status(r)
        if self._journal.problem:
            raise CniError(ErrorCode.UNAVAILABLE, "no network can be journalled", self._journal.problem)
        try:
            for namespace, name in cluster_wide(self._settings):
                await self._serve(r, namespace, name)
        except (NetworkRefused, PluginFailed, ConnectionError, TimeoutError) as error:
            raise CniError(
                ErrorCode.UNAVAILABLE, "a network that all pods get cannot be served", f"{error}; TP6013"
            ) from error

    async def gc(self, r: Request) -> None:
        """Detach what the runtime does not list, have plugins collect theirs. Goes on after errors.

        As with leases the list is one proof of two: where the API server has the pod, it waits.
        """
        valid = r.config.valid_attachments
        if valid is None or r.config.disable_gc:
            await self._inner.gc(r)
            return
        listed = frozenset(valid)
        errors: list[CniError] = []
        for row in self._journal.rows():
            gone = (row.call.container_id, row.main) not in listed and row.runtime_network == r.config.name
            if gone and row.call.container_id not in self._adding:
                if row.pod is not None and not await why_over(row.pod, self._pods):
                    continue
                async with self._turns.of(row.call.container_id):
                    errors += await self._detach_all(r, [row])
        errors += await self._collect_networks(r)
        await self._inner.gc(r)
        await self._due.retry(r)
        if errors:
            raise errors[0]

    # What is done without a call.

    async def collect(self) -> None:
        """Find what no DEL will come for, on two proofs: the node's and the API's. It is detached when
        the next DEL or GC of any pod brings a shim. And write annotations that could not be written.
        """
        await self._telling.retry()
        for row in self._journal.rows():
            if row.call.container_id in self._adding:
                continue
            rebooted = row.boot_id != self._boot_id
            detached = not row.instead and not self._inner.knows(row.call.container_id, row.main)
            if not (rebooted or detached):
                continue
            if rebooted if row.pod is None else await why_over(row.pod, self._pods):
                self._due.add(row.key)

    # ADD.

    async def _pod(self, r: Request) -> Pod | None:
        """The pod as far as it is known; what is wrong with it the default network's ADD says."""
        try:
            return await look_up(r, self._pods)
        except PodLookupFailed:
            return None

    async def _choose(self, r: Request, pod: Pod | None) -> Choice:
        if pod is None:
            return NONE
        namespace, annotations = r.args.get("K8S_POD_NAMESPACE", ""), pod.metadata.annotations or {}
        asked: set[tuple[str, str]] = set()
        try:
            while True:
                try:
                    return choose(namespace, annotations, self._settings, self._definitions.lookup, r.ifname)
                except UnknownNetwork as unknown:
                    if unknown.key in asked:
                        raise
                    asked.add(unknown.key)
                    await self._definitions.fetch(unknown.key)
        except NetworkRefused as refusal:
            self._telling.event(pod, refusal.code, f"{refusal}. To mend it: {refusal.fix}", warning=True)
            code = ErrorCode.TRY_LATER if isinstance(refusal, UnknownNetwork) else ErrorCode.BAD_CONFIG
            raise CniError(code, str(refusal), refusal.details) from refusal

    async def _add(self, r: Request, pod: Pod | None, choice: Choice) -> Result:
        left = self._journal.of(r.container_id)
        if choice.instead is not None and any(self._alive(row, r) for row in left):
            text = f"container {r.container_id} was attached before; DEL comes first; TP2003"
            raise CniError(ErrorCode.BAD_ENVIRONMENT, f"CNI_IFNAME {r.ifname} is taken", text)
        result = None if choice.instead is not None else await self._inner.add(r)
        begun: list[Row] = []
        try:
            # An attempt before this one was cut off: what it began is undone first.
            failed = await self._detach_all(r, left)
            if failed:
                raise failed[0]
            rows = [self._row(r, pod, wanted, n) for n, wanted in enumerate(choice.all)]
            await self._journal.begin(rows)
            for row in rows:
                begun.append(row)
                begun[-1] = await self._attach(r, row)
            self._move_default_route(r, begun)
        except Exception as error:
            never = error.kind if isinstance(error, PluginFailed) and error.absent else ""
            await self._take_back(r, begun, never, forget=result is not None)
            raise self._told(pod, begun[-1] if begun else None, error) from error
        if pod is not None:
            await self._tell(r, pod, result, begun)
        if result is not None:
            return result
        return Result.from_object(begun[0].result, begun[0].call.version)

    def _alive(self, row: Row, r: Request) -> bool:
        return row.done and row.boot_id == self._boot_id and row.request_id != r.request_id

    def _row(self, r: Request, pod: Pod | None, wanted: Wanted, place: int) -> Row:
        made = call(wanted.definition, wanted.selection, wanted.ifname, r.environment)
        meta = pod.metadata if pod is not None else None
        return Row(
            call=made,
            place=place,
            main=r.ifname,
            runtime_network=r.config.name,
            reference=wanted.definition.reference,
            boot_id=self._boot_id,
            request_id=r.request_id,
            pod=PodRef(
                namespace=r.args.get("K8S_POD_NAMESPACE", ""),
                name=r.args.get("K8S_POD_NAME", ""),
                uid=meta.uid,
            )
            if meta is not None
            else None,
            gateways=tuple(map(str, wanted.selection.gateways)),
            instead=wanted.ifname == r.ifname,
            own=self._chains.own(made.plugins),
        )

    async def _attach(self, r: Request, row: Row) -> Row:
        return await self._journal.done(row, await self._chains.add(r, row))

    def _move_default_route(self, r: Request, rows: Sequence[Row]) -> None:
        """Raises NetworkRefused, KernelRefused."""
        gateways = [(row.call.ifname, ip_address(gateway)) for row in rows for gateway in row.gateways]
        if not gateways:
            return
        assert r.descriptors is not None  # noqa: S101 - ADD has them
        ifname, kernel = gateways[0][0], self._inside(r.descriptors)
        wanted = [gateway for _, gateway in gateways]
        try:
            kernel.apply(moved(kernel.observe(), ifname, wanted, self._routed))
            problem = not_moved(kernel.observe(), ifname, wanted)
        except KernelRefused as error:
            problem = str(error)
        if problem:
            fix = "name a gateway in the network of that interface"
            raise NetworkRefused("TP6011", f"default-route of {ifname}", problem, fix)

    async def _take_back(self, r: Request, begun: Sequence[Row], never: str, *, forget: bool) -> None:
        """Undo after a failure that is about to be reported; a failure of this is for DEL to mend."""
        known = self._journal.of(r.container_id)
        started = {row.key for row in begun}
        for row in known:
            if row.key not in started and row.request_id == r.request_id and not row.done:
                await self._forget(row)  # its ADD never began
        await self._detach_all(r, [row for row in known if row.key in started], never)
        if forget:
            try:
                await self._inner.delete(r)
            except CniError as error:
                log.error("undo_failed", container=r.container_id, error=str(error))

    async def _forget(self, row: Row) -> None:
        try:
            await self._journal.forget(row)
        except JournalError as error:
            log.error("undo_failed", container=row.call.container_id, error=str(error))

    def _told(self, pod: Pod | None, row: Row | None, error: Exception) -> CniError:
        """What the runtime is told, and the pod."""
        if isinstance(error, NetworkRefused):
            told, code = CniError(ErrorCode.BAD_CONFIG, str(error), error.details), error.code
        elif isinstance(error, JournalError):
            told, code = CniError(ErrorCode.IO_FAILURE, "no network can be journalled", str(error)), "TP6009"
        elif isinstance(error, CniError) or row is None:
            return error if isinstance(error, CniError) else CniError(ErrorCode.INTERNAL, str(error))
        else:
            told, code = _failure(ErrorCode.INTERNAL, row.reference, row.call.ifname, error), "TP6009"
        if pod is not None:
            self._telling.event(pod, code, str(told), warning=True)
        return told

    async def _tell(self, r: Request, pod: Pod, result: Result | None, rows: Sequence[Row]) -> None:
        attached = (
            []
            if result is None
            else [Attached(name=r.config.name, ifname=r.ifname, result=result, default=True)]
        )
        mtus = self._mtus(r)
        for row in rows:
            parsed = Result.from_object(row.result, row.call.version)
            one = Attached(
                name=row.reference,
                ifname=row.call.ifname,
                result=parsed,
                default=row.instead,
                gateways=row.gateways,
                mtu=mtus.get(row.call.ifname, 0),
            )
            attached.append(one)
            ips = ", ".join(str(ip.address) for ip in parsed.ips)
            message = f"Add {row.call.ifname} [{ips}] from {row.reference}"
            self._telling.event(pod, "AddedInterface", message, warning=False)
        if rows and rows[0].pod is not None:
            await self._telling.status(rows[0].pod, network_status(attached))

    def _mtus(self, r: Request) -> dict[str, int]:
        """By interface; results tell them from CNI 1.1.0 on only."""
        try:
            links = self._inside(r.descriptors).observe().links if r.descriptors is not None else {}
        except KernelRefused:
            return {}
        return {name: link.mtu for name, link in links.items()}

    # DEL.

    async def _detach_all(self, r: Request, rows: Sequence[Row], never: str = "") -> list[CniError]:
        """Backwards; what went wrong. ``never``: a plugin that was not there when the last one was begun."""
        errors = []
        for row in sorted(rows, key=lambda row: row.place, reverse=True):
            error = await self._detach(r, row, never)
            never = ""
            if error is not None:
                errors.append(error)
        return errors

    async def _detach(self, r: Request, row: Row, never: str = "") -> CniError | None:
        """The row goes when it is done; else what went wrong is kept in it, and returned."""
        own = r.container_id == row.call.container_id and r.command in ("ADD", "DEL")
        netns = r.netns if own and r.descriptors is not None else ""
        try:
            await self._chains.delete(r if own else _elsewhere(r), row, netns, never)
            await self._journal.forget(row)
        except _FAILURES as error:
            log.warning(
                "network_not_detached",
                container=row.call.container_id,
                ifname=row.call.ifname,
                network=row.reference,
                failures=row.failures + 1,
                error=str(error),
            )
            if not isinstance(error, JournalError):
                try:
                    await self._journal.failed(row, str(error))
                except JournalError as worse:
                    log.error("network_failure_not_journalled", error=str(worse))
            told = _failure(ErrorCode.TRY_LATER, row.reference, row.call.ifname, error)
            return CniError(ErrorCode.TRY_LATER, f"not detached: {told.msg}", f"{told.details}; TP6010")
        return None

    # STATUS and GC.

    async def _serve(self, r: Request, namespace: str, name: str) -> None:
        """Raises NetworkRefused, PluginFailed, ConnectionError."""
        try:
            found = self._definitions.lookup(namespace, name)
        except UnknownNetwork as unknown:
            async with asyncio.timeout(_READY_WITHIN):
                await self._definitions.fetch(unknown.key)
            found = self._definitions.lookup(namespace, name)
        made = call(found, Selection(name=name), "net1", r.environment)
        await self._chains.ready(r, made, self._chains.own(made.plugins), _READY_WITHIN)

    async def _collect_networks(self, r: Request) -> list[CniError]:
        networks: dict[str, tuple[Call, bool]] = {}
        for found in self._definitions.readable():
            made = call(found, Selection(name=found.reference.partition("/")[2]), "", r.environment)
            networks[found.reference] = made, self._chains.own(made.plugins)
        valid: dict[str, list[tuple[str, str]]] = {}
        for row in self._journal.rows():
            networks[row.reference] = row.call, row.own
            valid.setdefault(row.reference, []).append(row.key)
        errors = []
        for reference, (made, own) in networks.items():
            try:
                await self._chains.collect(r, made, valid.get(reference, ()), own)
            except (PluginFailed, ConnectionError) as error:
                errors.append(_failure(ErrorCode.INTERNAL, reference, "GC", error))
        return errors


def _elsewhere(r: Request) -> Request:
    """The same shim, for an attachment that the call is not about: its descriptors are another pod's."""
    return Request(
        command=r.command, config=r.config, path=r.path, executor=r.executor, cancelled=r.cancelled
    )


def _failure(code: ErrorCode, reference: str, ifname: str, error: Exception) -> CniError:
    known = getattr(error, "code", 0)
    if (
        known in (ErrorCode.TRY_LATER, ErrorCode.BAD_CONFIG, ErrorCode.BAD_NETNS)
        and code is ErrorCode.INTERNAL
    ):
        code = ErrorCode(known)
    text = str(error) if isinstance(error, PluginFailed | ConnectionError | JournalError) else repr(error)
    return CniError(code, f"network {reference} ({ifname}): {text}", "TP6009")
