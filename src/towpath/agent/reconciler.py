"""One step of the loop: observe, compute what should be, apply the difference; under the kernel lock.

Most changes are of policy alone, and then what changes is known without a look at the kernel: ``amend``. It
is for when nothing else can have come between; the step is the truth, and what follows any doubt.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

import msgspec
from msgspec.structs import replace

from towpath.agent.metrics import Metrics
from towpath.agent.planning import Plan, Planner
from towpath.agent.recovery import recovered
from towpath.agent.repairs import Repairs, operation_name
from towpath.desired.annotations import own_annotations
from towpath.desired.node import Desired
from towpath.desired.ruleset import MASQUERADED, MASQUERADING, TABLE
from towpath.kernel.nft_known import applied
from towpath.kernel.port import Kernel, KernelRefused
from towpath.log import get_logger
from towpath.model.attachment import Attachment, PodRef
from towpath.model.finding import Finding
from towpath.model.nft import NftTable
from towpath.model.op import AddLink, NftUpdate, Op, SetLink
from towpath.reconcile.check import foreign_devices, missing_devices
from towpath.reconcile.diff import diff

log = get_logger("towpath.reconcile")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What a step found and did. ``plan`` what it worked towards, ``planned`` the operations of the first
    comparison, ``failed`` what is still to be done, with the kernel's words; ``foreign`` devices in
    the way; ``repair`` that nothing but the
    kernel had changed; ``exposed`` that what translates pods' addresses was not as it should be, or absent.
    """

    plan: Plan
    planned: tuple[Op, ...] = ()
    failed: tuple[tuple[Op, KernelRefused], ...] = ()
    missing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    repair: bool = False
    exposed: bool = False

    @property
    def annotations(self) -> dict[str, str]:
        """flannel's annotations, once the devices they speak of exist."""
        broken = any(isinstance(op, AddLink | SetLink) for op, _ in self.failed)
        if broken or self.foreign or self.plan.snapshot is None:
            return {}
        return own_annotations(self.plan.snapshot)

    @property
    def firewall(self) -> bool:
        """Whether the table is as desired, so that pods can be attached."""
        return self.plan.desired.state.nft is not None and not any(
            isinstance(op, NftUpdate) for op, _ in self.failed
        )

    @property
    def drift(self) -> tuple[str, ...]:
        """What is not as it should be and could not be mended, one line each."""
        lines = [*(f"{op.describe()}: {error.reason}" for op, error in self.failed), *self.foreign]
        return (*lines, *(f"link {name} is gone: its pod must be recreated" for name in self.missing))


class Reconciler:
    """``attachments`` is read, and the kernel observed and changed, under ``lock``. ``changed`` is told what
    was done each time that the firewall is as desired.
    """

    def __init__(
        self,
        kernel: Kernel,
        planner: Planner,
        lock: asyncio.Lock,
        attachments: Callable[[], tuple[Attachment, ...]],
        metrics: Metrics,
        repairs: Repairs,
        changed: Callable[[Sequence[Op]], None],
    ) -> None:
        self._kernel, self._planner = kernel, planner
        self._lock, self._attachments = lock, attachments
        self._metrics, self._repairs = metrics, repairs
        self._changed = changed
        self._last: Step | None = None
        self._sure = False
        self._since: list[NftUpdate] = []
        self.findings: tuple[Finding, ...] = ()
        """What the last step had to say about its input, also if it could not be carried out."""

    async def step(self) -> Step | None:
        """Bring the kernel to what is planned.

        None while there is no plan: nothing is changed then. Raises KernelRefused when the kernel cannot even
        be looked at.
        """
        begun = perf_counter()
        async with self._lock:
            self._sure = False
            step = self._step()
            self._sure = step is not None and step.firewall
        self._account(step, perf_counter() - begun)
        if step is not None and step.firewall:
            self._changed(step.planned)
        return step

    async def amend(self, changes: Callable[[tuple[Attachment, ...]], NftUpdate | None]) -> bool:
        """Carry out what ``changes`` says of the table since it, or the planner, was asked last.

        False: that is not certain to be right, and a step has to follow.
        """
        begun = perf_counter()
        async with self._lock:
            sure, self._sure = self._sure, False
            update = changes(self._attachments()) if sure else None
            if update is None:
                return False
            if update != NftUpdate(table=update.table):
                try:
                    if not self._kernel.amend(update):
                        return False
                except KernelRefused as e:
                    log.warning("operation_refused", operation=e.op, error=e.reason, hint=e.hint)
                    return False
                self._since.append(update)
                self._metrics.count("towpath_operations", operation_name(update))
                self._metrics.observe("towpath_policy_seconds", perf_counter() - begun)
                log.debug("amended", operation=update.describe())
            self._sure = True
        self._changed((update,))
        return True

    def table(self) -> NftTable | None:
        """What was last put in force, None before."""
        if self._last is None or not self._last.firewall:
            return None
        table = self._last.plan.desired.state.nft
        if table is not None and self._since:
            table = applied(table, self._since)
            self._last, self._since = _with_table(self._last, table), []
        return table

    def recovered(self, pods: Iterable[PodRef], boot_id: str) -> list[Attachment]:
        """What is attached according to the kernel alone. Raises KernelRefused."""
        return recovered(self._kernel.observe((), TABLE), pods, boot_id)

    def _step(self) -> Step | None:
        self.table()
        last = self._last.plan.desired.state if self._last else None
        sysctls = last.sysctls.keys() if last else ()
        observed = self._kernel.observe(sysctls, TABLE)
        plan, self.findings = self._planner.plan(observed, self._attachments())
        if plan is None:
            return None
        desired = plan.desired
        if desired.state.sysctls.keys() != sysctls:
            observed = self._kernel.observe(desired.state.sysctls, TABLE)
        planned = diff(observed, desired.state, desired.scope)
        self._since = []
        unchanged = self._last is not None and last == desired.state
        self._last = Step(
            plan=plan,
            planned=planned,
            failed=self._carry_out(planned, desired),
            missing=tuple(missing_devices(observed, desired.state)),
            foreign=tuple(foreign_devices(observed, desired.state)),
            repair=bool(planned) and unchanged and self._last is not None and not self._last.failed,
            exposed=_exposed(observed.nft, desired.state.nft),
        )
        return self._last

    def _carry_out(self, planned: Sequence[Op], desired: Desired) -> tuple[tuple[Op, KernelRefused], ...]:
        """All at once; if the kernel refuses anything, look again and go on with the rest one by one."""
        try:
            self._kernel.apply(planned)
        except KernelRefused as e:
            log.warning("operation_refused", operation=e.op, error=e.reason, hint=e.hint)
        else:
            return ()
        failed = []
        observed = self._kernel.observe(desired.state.sysctls, TABLE)
        for op in diff(observed, desired.state, desired.scope):
            try:
                self._kernel.apply([op])
            except KernelRefused as e:
                failed.append((op, e))
        return tuple(failed)

    def _account(self, step: Step | None, seconds: float) -> None:
        self._metrics.count("towpath_reconcile_runs")
        self._metrics.observe("towpath_reconcile_seconds", seconds)
        if step is None or not step.planned:
            return
        for op in step.planned:
            self._metrics.count("towpath_operations", operation_name(op))
        if step.repair:
            self._repairs.note(step.planned)
        log.info(
            "repaired" if step.repair else "applied",
            operations=[op.describe() for op in step.planned[:20]],
            more=max(0, len(step.planned) - 20),
            failed=len(step.failed),
            ms=round(seconds * 1e3, 1),
        )
        if step.failed:
            self._metrics.count("towpath_reconcile_failures")


def _with_table(step: Step, table: NftTable) -> Step:
    desired = replace(step.plan.desired, state=replace(step.plan.desired.state, nft=table))
    return replace(step, plan=replace(step.plan, desired=desired))


def _exposed(observed: NftTable | None, desired: NftTable | None) -> bool:
    if desired is None:
        return False
    if observed is None:
        return True
    return any(observed.chains.get(name) != desired.chains[name] for name in MASQUERADING) or any(
        observed.sets.get(name) != decl for name, decl in desired.sets.items() if name in MASQUERADED
    )
