"""The node daemon: API, kernel and CNI calls wired together. What to do is decided elsewhere.

Events only poke runners. One runner keeps the kernel as desired, another the own Node object. On SIGTERM
both stop, calls under way are finished, and all that is in the kernel stays: the next agent takes it over.
"""

import asyncio
import gc
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress

from towpath import __version__
from towpath.agent import gauges
from towpath.agent.addresses import Addresses
from towpath.agent.admission import ByPolicy
from towpath.agent.aftermath import Aftermath
from towpath.agent.attach_conntrack import Connections
from towpath.agent.attach_settings import AttachSettings
from towpath.agent.attach_setup import attachments as make_attachments
from towpath.agent.attachments import Attachments
from towpath.agent.config import Settings
from towpath.agent.ethtool import SystemOffload
from towpath.agent.health import Handler, HealthServer, Page, server_tls
from towpath.agent.hold import heed
from towpath.agent.inquiries import Inquiries
from towpath.agent.interest import relevant_link_event
from towpath.agent.ipam_inquiries import IpamInquiries
from towpath.agent.measured import MeasuredHandler
from towpath.agent.metrics import Metrics, Sample
from towpath.agent.network_setup import ExtraNetworks, extra_networks
from towpath.agent.offload import OffloadProbe
from towpath.agent.offload_view import offload_findings, overlay_devices
from towpath.agent.readiness import GatedHandler, Readiness
from towpath.agent.reconciler import Reconciler, Step
from towpath.agent.repairs import Repairs
from towpath.agent.report import Verification, shortened
from towpath.agent.runner import Runner
from towpath.agent.settings_watch import SettingsWatch
from towpath.agent.step_findings import blind, step_findings
from towpath.agent.surroundings import Cluster, Standalone, Surroundings
from towpath.api.report import BY_BLOCKS, IPAM_MODE, LEAVING, AgentReport
from towpath.cni import server
from towpath.cni.errors import CniError
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.store import LeaseStore
from towpath.kernel.linux import LinuxKernel
from towpath.kernel.port import KernelRefused
from towpath.kernel.watch import Kind, NetlinkWatch
from towpath.kube.backoff import Backoff
from towpath.kube.client import Client
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.model.network import ClusterNetwork
from towpath.model.nft import NftTable, Owner

log = get_logger("towpath.agent")

# Kernel events come in swarms, most of them our own doing while pods are attached. Both delays are far below
# the second within which a deletion by somebody else is to be mended.
_EVENT_DELAY, _EVENT_DELAY_BUSY = 0.1, 0.5
_STUCK_AFTER = 120.0
_DAY = 86400.0
# Between two changes of policy: a storm of events is not to become one of transactions.
_POLICY_REST = 0.02


class Agent:
    """One node's agent, in the calling thread's network namespace. ``run`` may be called once.

    Without a ``client`` there is no cluster: ``network`` are this host's own networks.
    """

    def __init__(self, settings: Settings, network: ClusterNetwork, client: Client | None) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._attach = AttachSettings(
            bounds=() if client else network.networks, lease_grace=settings.lease_grace_seconds
        )
        self._readiness = Readiness(("api", "kernel", "cni") if client else ("kernel", "cni"))
        self._verification = Verification()
        self._metrics = Metrics()
        self._network, self._client = network, client
        self._repairs = Repairs(self._metrics, time.monotonic)
        self._step: Step | None = None
        self._kernel_problem = ""
        self._kernel_runner = Runner(
            self._reconcile, resync=settings.resync_seconds, backoff=Backoff(0.2, 10.0)
        )
        self._node_runner = Runner(
            self._publish, resync=settings.resync_seconds, backoff=Backoff(0.5, 30.0), rest=0.25
        )
        self._policy_runner = Runner(
            self._amend, resync=settings.resync_seconds, backoff=Backoff(0.2, 10.0), rest=_POLICY_REST
        )
        self._around: Surroundings = Standalone(network)
        if client is not None:
            changes = self._kernel_runner.poke, self._policy_runner.poke, self._own_changed
            self._around = Cluster(settings, network, client, self._metrics, *changes)
        self._attach.reserved, self._attach.elsewhere = self._around.reserved, self._around.elsewhere
        self._attach.barred = self._barred
        self._attach.contested = lambda: frozenset((c.uid, c.address) for c in self._around.contests())
        probing = client is not None and settings.offload_probe
        self._probe = OffloadProbe(SystemOffload(), settings.offload_port) if probing else None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises OSError, KernelRefused when a part cannot be set up at all."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            await self._set_up(stack)
            runners = (self._kernel_runner, self._policy_runner, self._node_runner)
            parts = [*self._around.parts(self._addresses.exhaustible), *(runner.run() for runner in runners)]
            parts += [self._collect(), self._settings_watch.run(), *self._extra.parts()]
            parts.append(heed(self._settings.state_dir, self._gate.hold, stop))
            if self._revocation is not None:
                parts.append(self._revocation.run())
            if self._probe is not None:
                parts.append(self._probe.run())
                stack.callback(self._probe.close)
            if self._around.known:
                self._kernel_runner.poke()
            await _until(stop, [asyncio.create_task(part) for part in parts])
            log.info("stopping", left_in_place="links, routes, firewall")

    async def _set_up(self, stack: AsyncExitStack) -> None:
        """Open everything, in the order in which the next thing needs the one before."""
        settings = self._settings
        boot_id = settings.boot_id_file.read_text().strip()
        kernel = LinuxKernel()
        stack.callback(kernel.close)
        self._store = self._lease_store(boot_id)
        self._store_opened = False
        stack.callback(self._store.close)
        with suppress(LeaseStoreError):  # its problem is told by STATUS, readiness and findings
            self._store.open()
        admission = ByPolicy(self._around, self._enforce, self._in_force)
        self._attachments: Attachments = await stack.enter_async_context(
            make_attachments(self._store, kernel, self._around.pods, self._attach, self._lock, admission)
        )
        pods, networks = self._around.everybody, self._network.networks
        self._addresses = Addresses(settings.node_name, self._store, self._attachments, pods, networks)
        self._ipam = IpamInquiries(self._addresses, self._attachments.garbage)
        revocation = self._around.revocation(kernel, self._lock)
        if revocation is not None:
            stack.callback(revocation.close)
        self._revocation = revocation
        self._reconciler = Reconciler(
            kernel,
            self._around.planner,
            self._lock,
            self._attachments.current,
            self._metrics,
            self._repairs,
            revocation.applied if revocation is not None else lambda _: None,
        )
        self._inquiries = Inquiries(
            kernel, self._lock, self._in_force, self._attachments.current, lambda: self._around.hosts
        )
        self._aftermath = Aftermath(Connections(), self._network, self._metrics, time.monotonic)
        stack.push_async_callback(self._aftermath.close)
        routed, found = self._network.networks, self._attachments
        owner: Owner = "own" if self._network.own_table else "free"
        self._extra: ExtraNetworks = await stack.enter_async_context(
            extra_networks(settings, self._client, self._around, found, routed, boot_id, owner)
        )
        self._gate = GatedHandler(self._extra.handler, self._attach)
        handler = MeasuredHandler(self._gate, self._metrics)
        serving = await server.serve(settings.cni_socket, handler, self._extra.attend)
        stack.push_async_callback(serving.close)
        watch = NetlinkWatch(self._kernel_changed)
        stack.callback(watch.close)
        watch.start()
        self._settings_watch = SettingsWatch(self._sysctls, self._kernel_runner.poke)
        stack.callback(self._settings_watch.close)
        health = HealthServer(self._pages(), settings.health_token_file)
        tls = server_tls(settings.health_tls_cert, settings.health_tls_key)
        port = await health.listen(*settings.health_address, tls)
        stack.push_async_callback(health.close)
        self._judge()
        log.info("started", version=__version__, node=settings.node_name, health_port=port)

    def _barred(self) -> str:
        own = self._around.own
        if own is None or (own.metadata.annotations or {}).get(IPAM_MODE) not in (BY_BLOCKS, LEAVING):
            return ""
        return (
            "other nodes may have blocks in this node's podCIDRs, as it gave out addresses by blocks: set "
            "ipam_mode: blocks again, or run towpath ipam migrate --to podCIDR"
        )

    def _lease_store(self, boot_id: str) -> LeaseStore:
        """Not open yet. In block mode what was freed last comes last however long ago, as with Calico."""
        hold = 60.0 if self._settings.ipam_mode == "podCIDR" else _DAY
        path = self._settings.state_dir / "leases.db"
        store = LeaseStore(path, boot_id=boot_id, clock=_since_boot, hold=hold)
        if (blocks := self._around.blocks) is not None:
            blocks.store, blocks.in_force, self._attach.blocks = store, self._reconcile, blocks
        return store

    # Events.

    def _own_changed(self) -> None:
        self._judge()
        self._node_runner.poke()

    def _kernel_changed(self, kind: Kind, name: str) -> None:
        devices = self._step.plan.watched if self._step is not None else ()
        if not relevant_link_event(kind, name, devices):
            return
        if kind == "flushed":  # everything is open now
            self._aftermath.gone()
            self._kernel_runner.poke()
        else:
            self._kernel_runner.poke(_EVENT_DELAY_BUSY if self._gate.busy else _EVENT_DELAY)

    def _sysctls(self) -> dict[str, str]:
        return self._step.plan.desired.state.sysctls if self._step is not None else {}

    # The two things done.

    async def _reconcile(self) -> bool:
        if not self._around.known:
            self._judge()
            return True  # the list's end pokes
        if not self._leases_known():
            self._judge()
            return False
        nonce = self._verification.asked(self._around.own)
        try:
            step = await self._reconciler.step()
            self._kernel_problem = ""
        except KernelRefused as e:
            log.error("kernel_not_observed", error=str(e))
            return self._could_not(str(e))
        except Exception as e:  # a defect must not take CNI calls down with it: what runs, keeps running
            log.exception("reconcile_failed")
            return self._could_not(f"internal error: {type(e).__name__}: {e}")
        if step is not None:
            self._learn(step)
            self._aftermath.after(step, frozenset(c.address for c in self._around.contests()))
            if nonce:
                found = [*(op.describe() for op in step.planned), *step.drift[len(step.failed) :]]
                self._verification.answer(nonce, found, time.monotonic())
        self._judge()
        self._node_runner.poke()
        return step is not None and not step.failed

    async def _amend(self) -> bool:
        """Bring what has changed of policy to the kernel; if there is any doubt, by comparing everything."""
        if not (self._around.known and await self._reconciler.amend(self._around.policy_changes)):
            self._kernel_runner.poke()
        self._node_runner.poke()  # findings may be others
        return True

    async def _enforce(self) -> bool:
        return await self._reconciler.amend(self._around.policy_changes) or await self._reconcile()

    def _in_force(self) -> NftTable | None:
        return self._reconciler.table()

    async def _collect(self) -> None:
        """Every resync interval, free leases whose DEL never came, on two proofs."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            if not self._around.known or self._store.problem:
                continue
            try:
                await self._attachments.garbage.collect()
                await self._extra.collect()
                await self._addresses.audit()
                await self._addresses.sample()
            except (CniError, LeaseStoreError) as e:
                log.warning("leases_not_collected", error=str(e))

    def _could_not(self, why: str) -> bool:
        self._metrics.count("towpath_reconcile_failures")
        self._kernel_problem = why
        self._judge()
        self._node_runner.poke()
        return False

    def _leases_known(self) -> bool:
        """Whether the store has been read: without it every pod would look like a leftover."""
        if not self._store_opened:
            try:
                self._store.open()
            except LeaseStoreError as e:
                log.error("lease_store_unusable", error=str(e))
                if not e.damaged:
                    return False
            else:
                self._attachments.adopt()
            self._store_opened = True
        return not self._store.lost or self._rebuilt()

    def _rebuilt(self) -> bool:
        """Make the store anew: of what is in memory, else of what the kernel and the API know."""
        try:
            known = self._store.known()
            if known is None:
                known = tuple(self._reconciler.recovered(self._around.here(), self._store.boot_id))
            aside = self._store.rebuild(known)
        except (LeaseStoreError, KernelRefused) as e:
            log.error("lease_store_not_rebuilt", error=str(e))
            return False
        log.warning("lease_store_rebuilt", attachments=len(known), damaged_one=str(aside))
        self._attachments.adopt()
        return True

    def _learn(self, step: Step) -> None:
        """What the step found out, for those who need it."""
        first = self._step is None
        self._step = step
        if step.firewall and step.plan.pod_cidrs:
            self._attach.pod_cidrs = step.plan.pod_cidrs
            self._attach.mtu = step.plan.pod_mtu
            self._attach.not_ready = ""
            self._gate.open()
        if self._probe is not None:
            self._probe.update(overlay_devices(step))
        if first:
            # What there is by now stays, mostly. To look through all of it for garbage again and again would
            # hold everything up for tenths of a second.
            gc.collect()
            gc.freeze()
            log.info("in_charge", operations=len(step.planned), pods=len(step.plan.attachments))

    async def _publish(self) -> bool:
        if not self._kernel_runner.runs:
            return True  # nothing to say yet
        now = time.monotonic()
        drift = (*(self._step.drift if self._step else ()), *self._verification.drift(now))
        report = AgentReport(
            version=__version__,
            ready=self._readiness.ready,
            pods=len(self._attachments.current()),
            drift=shortened(dict.fromkeys(drift)),
            findings=shortened(map(str, self._findings())),
            verified=self._verification.nonce,
            leased=self._addresses.leased_by_pool(),
        )
        annotations = self._step.annotations if self._step else {}
        up = bool(annotations) and self._step is not None and self._step.firewall
        annotations |= await self._inquiries.annotations(self._around.own)
        annotations |= await self._ipam.annotations(self._around.own)
        blocks = self._around.blocks
        if blocks is not None and blocks.adopted and not blocks.leaving():
            annotations[IPAM_MODE] = BY_BLOCKS
        return await self._around.publish(annotations, report, network_up=up)

    # What is known.

    def _judge(self) -> None:
        """Restate readiness, and why the node cannot take pods."""
        api = self._around.problem()
        self._readiness.set("api", api)
        kernel = self._kernel_reason()
        self._readiness.set("kernel", kernel)
        if not self._step or not self._step.firewall:
            self._attach.not_ready = api or kernel
        self._readiness.set("cni", self._store.problem or self._attach.not_ready)

    def _kernel_reason(self) -> str:
        if self._kernel_problem:
            return self._kernel_problem
        if self._step is None:
            blocked = [str(f) for f in self._reconciler.findings]
            return "; ".join(blocked) or "not compared with the desired state yet"
        if self._step.failed or self._step.foreign:
            return "; ".join(self._step.drift)
        if self._step.firewall:
            return ""
        return "; ".join(map(str, self._step.plan.blocked)) or "the firewall is not in force"

    def _findings(self) -> list[Finding]:
        found = [*self._reconciler.findings, *self._attachments.findings(), *self._addresses.findings()]
        found += self._extra.findings()
        if self._step is not None:
            found += step_findings(self._step, self._settings.node_name)
        found += self._repairs.findings(self._settings.node_name)
        if self._probe is not None:
            found += offload_findings(self._probe, self._settings.node_name)
        if self._kernel_problem:
            found.append(blind(self._settings.node_name, self._kernel_problem))
        return found + self._around.findings()

    def _gauges(self) -> Iterable[Sample]:
        return gauges.sample(
            self._readiness,
            self._around.reflectors,
            self._probe,
            self._step.plan.desired.scope.devices if self._step else (),
            len(self._attachments.current()),
            len(self._step.drift) if self._step else 0,
            self._network.own_table and self._step is not None and self._step.firewall,
            self._findings,
            self._addresses.exhaustible(),
            self._addresses.blocks(),
            self._attachments.garbage,
            len(self._around.contests()),
        )

    def _pages(self) -> dict[str, Handler]:
        async def healthz(_: Mapping[str, str]) -> Page:
            silent = asyncio.get_running_loop().time() - self._kernel_runner.finished_at
            if self._kernel_runner.runs and silent > self._settings.resync_seconds + _STUCK_AFTER:
                return Page(503, f"the kernel has not been looked at for {silent:.0f} s\n")
            return Page(200, "ok\n")

        async def readyz(_: Mapping[str, str]) -> Page:
            self._judge()
            return Page(200 if self._readiness.ready else 503, self._readiness.text())

        async def metrics(_: Mapping[str, str]) -> Page:
            return Page(
                200,
                await asyncio.to_thread(self._metrics.render, list(self._gauges())),
                "text/plain; version=0.0.4",
            )

        return {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics, "/policy": self._inquiries.page}


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for ``stop``, or for a task to fail: none of them ends by itself."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *tasks):
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
