"""Pods' networks beside the default one: what the CNI calls mean for them.

A CNI handler in front of ``Attachments``, which makes the default network's interface. A pod without extra
networks passes through at the price of two look-ups. For the others each call does what it says for every
attachment: ADD in order, the default network first; DEL backwards from the journal, whatever became of pod
and definition. If anything fails in ADD, all of it is undone; what DEL could not do stays in the journal, is
told to the runtime, and is tried again.
"""

from collections.abc import Callable, Sequence

from towpath.agent.attach_pods import PodDirectory, PodLookupFailed, look_up
from towpath.agent.attach_turns import Turns
from towpath.agent.attachments import Attachments
from towpath.agent.network_attach import Attacher
from towpath.agent.network_chains import Chains
from towpath.agent.network_definitions import NetworkDefinitions, UnknownNetwork
from towpath.agent.network_detach import Detacher, failure
from towpath.agent.network_due import Due
from towpath.agent.network_firewalls import PodFirewalls
from towpath.agent.network_helper import Helper
from towpath.agent.network_plug import Plugging, PodOf
from towpath.agent.network_plugins import PluginFailed
from towpath.agent.network_telling import Telling
from towpath.agent.network_upkeep import Upkeep
from towpath.agent.pod_devices import NO_ANSWER, PodDevices
from towpath.api.core import Pod
from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Result
from towpath.kernel.port import Kernel
from towpath.log import get_logger
from towpath.model.net import Net
from towpath.multinet.choose import NONE, Choice, NetworkSettings, choose
from towpath.multinet.journal import Journal, JournalError, Row
from towpath.multinet.refusal import NetworkRefused

log = get_logger("towpath.networks")


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
        firewalls: PodFirewalls,
        devices: PodDevices,
    ) -> None:
        self._firewalls, self._devices = firewalls, devices
        self._inner, self._journal, self._chains = inner, journal, chains
        self._definitions, self._telling, self._pods = definitions, telling, pods
        self._settings, self._boot_id, self._clock = settings, boot_id, clock
        self._attacher = Attacher(journal, chains, telling, inside, routed, boot_id, devices)
        self._turns = Turns()
        self._adding: set[str] = set()
        self._detacher = Detacher(journal, chains)
        self._due = Due(journal, self._detacher.one, clock)
        self._upkeep = Upkeep(
            inner,
            journal,
            chains,
            definitions,
            pods,
            settings,
            self._detacher,
            self._due,
            self._turns,
            self._adding,
            boot_id,
        )

    def plugging(self, helper: Helper, pod_of: PodOf, resync: float) -> Plugging:
        """What changes the networks of pods that run."""
        return Plugging(
            self._inner,
            self._journal,
            self._attacher,
            self._detacher,
            self._due,
            self._definitions,
            self._telling,
            helper,
            self._settings,
            self._turns,
            self._adding,
            self._firewalls,
            self._devices,
            pod_of,
            self._clock,
            resync,
        )

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
            failed = await self._detacher.all(r, rows)
            self._firewalls.forget(r.container_id)
            await self._inner.delete(r)
        for row in rows:
            if row.pod is not None:
                self._telling.forget(row.pod)
        await self._due.retry(r)
        await self._firewalls.catch_up(r)
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
                raise failure(ErrorCode.CHECK_FAILED, row.reference, row.call.ifname, error) from error

    async def status(self, r: Request) -> None:
        """Whether ADD could work now; without the networks that all pods get, it could not."""
        await self._inner.status(r)
        await self._upkeep.status(r)
        await self._firewalls.catch_up(r)

    async def gc(self, r: Request) -> None:
        """Detach what the runtime does not list, have plugins collect theirs. Goes on after errors."""
        errors = await self._upkeep.gc(r)
        await self._inner.gc(r)
        await self._due.retry(r)
        if errors:
            raise errors[0]

    # What is done without a call.

    async def collect(self) -> None:
        """Find what no DEL will come for, and write annotations that could not be written."""
        await self._telling.retry()
        await self._upkeep.collect()

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
        try:
            choice = await self._definitions.complete(
                lambda lookup: choose(namespace, annotations, self._settings, lookup, r.ifname)
            )
            given = await self._devices.give(r, pod, choice.all)
            return Choice(given[0], given[1:]) if choice.instead is not None else Choice(None, given)
        except NetworkRefused as refusal:
            self._telling.event(pod, refusal.code, f"{refusal}. To mend it: {refusal.fix}", warning=True)
            later = isinstance(refusal, UnknownNetwork) or refusal.code == NO_ANSWER
            code = ErrorCode.TRY_LATER if later else ErrorCode.BAD_CONFIG
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
            failed = await self._detacher.all(r, left)
            if failed:
                raise failed[0]
            rows = [self._attacher.row(r, pod, wanted, n) for n, wanted in enumerate(choice.all)]
            await self._journal.begin(rows)
            await self._firewalls.prepare(r, rows, pod)
            for row in rows:
                begun.append(row)
                begun[-1] = await self._attacher.attach(r, row)
            self._attacher.move_default_route(r, begun)
        except Exception as error:
            never = error.kind if isinstance(error, PluginFailed) and error.absent else ""
            await self._take_back(r, begun, never, forget=result is not None)
            raise self._told(pod, begun[-1] if begun else None, error) from error
        if pod is not None:
            await self._attacher.tell(r, pod, result, begun)
        if result is not None:
            return result
        return Result.from_object(begun[0].result, begun[0].call.version)

    def _alive(self, row: Row, r: Request) -> bool:
        return row.done and row.boot_id == self._boot_id and row.request_id != r.request_id

    async def _take_back(self, r: Request, begun: Sequence[Row], never: str, *, forget: bool) -> None:
        """Undo after a failure that is about to be reported; a failure of this is for DEL to mend."""
        known = self._journal.of(r.container_id)
        started = {row.key for row in begun}
        for row in known:
            if row.key not in started and row.request_id == r.request_id and not row.done:
                await self._forget(row)  # its ADD never began
        await self._detacher.all(r, [row for row in known if row.key in started], never)
        self._firewalls.forget(r.container_id)
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
            told, code = failure(ErrorCode.INTERNAL, row.reference, row.call.ifname, error), "TP6009"
        if pod is not None:
            self._telling.event(pod, code, str(told), warning=True)
        return told
