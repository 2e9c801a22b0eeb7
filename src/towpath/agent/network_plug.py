"""Hot plug: a running pod gets and loses networks when its annotation becomes another.

Compares what a pod's annotation asks for with the journal, whenever the pod, the agent or ``towpath-ns`` is
new: so nothing is lost by a restart, and what was cut off is undone and done again. Each pod fails for
itself, is told so, and is tried again with growing pauses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from towpath.agent.attach_plan import result
from towpath.agent.attach_turns import Turns
from towpath.agent.attachments import Attachments
from towpath.agent.network_attach import Attacher
from towpath.agent.network_definitions import NetworkDefinitions
from towpath.agent.network_detach import Detacher
from towpath.agent.network_due import Due
from towpath.agent.network_firewalls import PodFirewalls
from towpath.agent.network_helper import Helper, NoHand
from towpath.agent.network_plugins import PluginFailed
from towpath.agent.network_telling import Telling
from towpath.agent.pod_devices import PodDevices
from towpath.agent.runner import Runner
from towpath.api.core import Pod
from towpath.cni.errors import CniError
from towpath.cni.request import Request
from towpath.desired.pods import pod_wiring
from towpath.kernel.port import KernelRefused
from towpath.kube.backoff import Backoff
from towpath.log import get_logger
from towpath.model.attachment import Attachment, PodRef
from towpath.model.finding import Finding
from towpath.multinet.annotation import Selection
from towpath.multinet.choose import NetworkSettings, Wanted, added, asked_for
from towpath.multinet.journal import Journal, JournalError, Row
from towpath.multinet.plug import Changes, changes
from towpath.multinet.refusal import NetworkRefused

log = get_logger("towpath.networks")

PodOf = Callable[[PodRef], Pod | None]
"""A pod as it was last seen, without asking anybody."""

_FIRST, _LONGEST = 5.0, 300.0
_SOON = 0.1
_DUE_AGAIN = 5.0
_TRIED = (NetworkRefused, PluginFailed, CniError, ConnectionError, JournalError, KernelRefused)
_MEND = "install towpath-ns (helper: true in the values), or start the pod anew"


class _Trouble:
    """What hinders a pod, since when it may be tried again, and the pause before that."""

    def __init__(self, code: str, text: str, fix: str, not_before: float, pause: float) -> None:
        self.code, self.text, self.fix, self.not_before, self.pause = code, text, fix, not_before, pause


class Plugging:
    """``turns`` are taken for a container's ID; those of ``adding`` are being attached just now."""

    def __init__(
        self,
        inner: Attachments,
        journal: Journal,
        attacher: Attacher,
        detacher: Detacher,
        due: Due,
        definitions: NetworkDefinitions,
        telling: Telling,
        helper: Helper,
        settings: NetworkSettings,
        turns: Turns,
        adding: set[str],
        firewalls: PodFirewalls,
        devices: PodDevices,
        pod_of: PodOf,
        clock: Callable[[], float],
        resync: float,
    ) -> None:
        self._inner, self._journal, self._attacher, self._detacher = inner, journal, attacher, detacher
        self._due, self._definitions, self._telling, self._helper = due, definitions, telling, helper
        self._settings, self._turns, self._adding = settings, turns, adding
        self._firewalls, self._devices, self._pod_of, self._clock = firewalls, devices, pod_of, clock
        self._troubles: dict[PodRef, _Trouble] = {}
        self._runner = Runner(self.once, resync=resync, backoff=Backoff(1.0, 30.0))
        helper.arrived = self.poke

    def poke(self) -> None:
        """Something may be different."""
        self._runner.poke(_SOON)

    async def run(self) -> None:
        """For ever."""
        await self._runner.run()

    async def once(self) -> bool:
        """Look at every pod, and at what no DEL came for. False: again soon."""
        attached = [att for att in self._inner.current() if att.pod is not None]
        self._troubles = {ref: t for ref, t in self._troubles.items() if any(a.pod == ref for a in attached)}
        for att in attached:
            if att.container_id not in self._adding and self._ripe(att.pod):
                await self._one(att)
        if self._helper.there:
            async with self._helper.hand() as r:
                await self._due.retry(r)
                await self._firewalls.catch_up(r)
        if self._due:
            self._runner.poke(_DUE_AGAIN)
        return not self._troubles

    def findings(self) -> list[Finding]:
        """Pods whose annotation asks for what they do not have."""
        return [
            Finding(
                code=trouble.code,
                object=f"Pod/{ref.namespace}/{ref.name}",
                message=trouble.text,
                fix=trouble.fix,
                severity="warning",
            )
            for ref, trouble in self._troubles.items()
        ]

    def _ripe(self, ref: PodRef | None) -> bool:
        trouble = self._troubles.get(ref) if ref is not None else None
        return trouble is None or trouble.code == "TP6017" or self._clock() >= trouble.not_before

    async def _one(self, att: Attachment) -> None:
        ref, pod = att.pod, self._pod(att)
        if ref is None or pod is None:
            return
        try:
            if not self._changes(att, pod):
                self._troubles.pop(ref, None)
                return
            environment = _environment(att, ref)
            await self._helper.visit(environment, att.network, partial(self._change, att=att, pod=pod))
        except NoHand:
            self._hindered(pod, ref, "TP6017", "its networks cannot be changed while it runs", _MEND)
        except _TRIED as error:
            log.warning("network_not_plugged", pod=f"{ref.namespace}/{ref.name}", error=str(error))
            code = error.code if isinstance(error, NetworkRefused) else "TP6009"
            fix = error.fix if isinstance(error, NetworkRefused) else "act on the plugin's words"
            self._hindered(pod, ref, code, str(error), fix)
        except Exception as error:  # a defect must not take other pods' networks with it
            log.exception("network_plug_failed", pod=f"{ref.namespace}/{ref.name}")
            self._hindered(
                pod, ref, "TP6009", f"internal error: {error!r}", "report it, with the agent's log"
            )
        else:
            self._troubles.pop(ref, None)

    def _pod(self, att: Attachment) -> Pod | None:
        """The pod behind an attachment, if it is to have networks still. What Multus began is left to it."""
        if att.pod is None or any(row.multus for row in self._journal.of(att.container_id)):
            return None
        pod = self._pod_of(att.pod)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            return None
        over = pod.status.phase in ("Succeeded", "Failed")
        return None if over or (att.pod.uid and att.pod.uid != pod.metadata.uid) else pod

    def _changes(self, att: Attachment, pod: Pod) -> Changes:
        """Raises NetworkRefused."""
        annotations: Mapping[str, str] = pod.metadata.annotations or {}
        asked = asked_for(pod.metadata.namespace, annotations, self._settings)
        return changes(self._rows(att), asked, att.ifname)

    def _rows(self, att: Attachment) -> list[Row]:
        return [row for row in self._journal.of(att.container_id) if row.main == att.ifname]

    def _hindered(self, pod: Pod, ref: PodRef, code: str, text: str, fix: str) -> None:
        before = self._troubles.get(ref)
        pause = min(before.pause * 2, _LONGEST) if before is not None else _FIRST
        self._troubles[ref] = _Trouble(code, text, fix, self._clock() + pause, pause)
        if before is None or (before.code, before.text) != (code, text):
            self._telling.event(pod, code, f"{text}. To mend it: {fix}", warning=True)

    # In the pod's namespace.

    async def _change(self, r: Request, att: Attachment, pod: Pod) -> None:
        async with self._turns.of(att.container_id):
            if not self._inner.knows(att.container_id, att.ifname):
                return  # DEL was faster
            wanted = self._changes(att, pod)
            new = await self._wanted(wanted.attach)
            taken = [row.call.device for row in self._rows(att)]
            new = await self._devices.give(r, pod, new, taken)  # what is refused changes nothing
            detached = await self._detach(r, att, pod, wanted.detach)
            begun: list[Row] = []
            try:
                if not detached:
                    await self._attach(r, att, pod, new, begun)
            finally:
                if wanted.detach or begun:
                    default = result(att, r)
                    await self._attacher.tell(r, pod, default, self._whole(att), {row.key for row in begun})
            if detached:
                raise detached[0]

    async def _detach(self, r: Request, att: Attachment, pod: Pod, rows: Sequence[Row]) -> list[CniError]:
        errors = await self._detacher.all(r, rows)
        for row in rows:
            self._firewalls.leave(row.key)
            text = f"Del {row.call.ifname} from {row.reference}"
            self._telling.event(pod, "RemovedInterface", text, warning=False)
        if any(row.gateways for row in rows):
            self._attacher.bring_back_default_route(r, pod_wiring(att).inside.routes)
        return errors

    async def _attach(
        self, r: Request, att: Attachment, pod: Pod, wanted: Iterable[Wanted], begun: list[Row]
    ) -> None:
        """Each by itself: one that fails is undone, and does not take those before it along."""
        for one in wanted:
            place = max((row.place for row in self._journal.of(att.container_id)), default=-1) + 1
            row = self._attacher.row(r, pod, one, place)
            await self._journal.begin([row])
            try:
                await self._firewalls.prepare(r, [row], pod)
                row = await self._attacher.attach(r, row)
                self._attacher.move_default_route(r, [row])
            except Exception as error:
                never = error.kind if isinstance(error, PluginFailed) and error.absent else ""
                await self._detacher.one(r, row, never)
                self._firewalls.leave(row.key)
                if row.gateways:
                    self._attacher.bring_back_default_route(r, pod_wiring(att).inside.routes)
                raise
            begun.append(row)

    async def _wanted(self, attach: tuple[tuple[Selection, str], ...]) -> tuple[Wanted, ...]:
        """Raises NetworkRefused."""
        return await self._definitions.complete(lambda lookup: added(attach, self._settings, lookup))

    def _whole(self, att: Attachment) -> list[Row]:
        return [row for row in self._rows(att) if row.done and not row.failures]


def _environment(att: Attachment, ref: PodRef) -> dict[str, str]:
    """As a runtime's call for it would have it."""
    args = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": ref.namespace,
        "K8S_POD_NAME": ref.name,
        "K8S_POD_INFRA_CONTAINER_ID": att.container_id,
        **({"K8S_POD_UID": ref.uid} if ref.uid else {}),
    }
    return {
        "CNI_CONTAINERID": att.container_id,
        "CNI_NETNS": att.netns,
        "CNI_IFNAME": att.ifname,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in args.items()),
    }
