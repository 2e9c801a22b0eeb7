"""Runs a takeover or a handback: checks, plans, and carries out step after step, each written down first."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from towpath.install import configuration, hold
from towpath.ipam.errors import LeaseStoreError
from towpath.ipam.host_local import HostLocalBusy
from towpath.kernel.port import KernelRefused
from towpath.migrate import giving, networks, processes, steps, taking
from towpath.migrate.checks import refusals, summary
from towpath.migrate.cluster import ClusterUnknown
from towpath.migrate.conflist import CanalConf, NotCanal, parse
from towpath.migrate.firewall import BACKENDS, FAMILIES, ToolFailed
from towpath.migrate.journal import FILE, Journal, JournalUnreadable, Run
from towpath.migrate.multus import MultusConf
from towpath.migrate.node import Node, Stopped
from towpath.migrate.ownership import publishes
from towpath.migrate.plan import TOWPATH_CONFLIST, Direction, Facts, plan
from towpath.migrate.saving import save
from towpath.model.finding import Finding
from towpath.multinet.journal import JournalError


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """``allow``: codes of findings that shall not forbid it. ``canal_conflist``: what Canal's was, for nodes
    on which nobody knows. ``label``: whether to move the DaemonSets by the Node's label. ``patience``:
    seconds to wait for what others have to do.
    """

    allow: frozenset[str] = frozenset()
    canal_conflist: Path | None = None
    label: bool = True
    patience: float = 600.0


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What would be done: ``done`` steps by number of a run that is resumed, ``found`` for people."""

    direction: Direction
    facts: Facts
    plan: tuple[steps.Step, ...]
    done: frozenset[int] = frozenset()
    resumed: bool = False
    found: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()
    refused: tuple[Finding, ...] = ()


class Migration:
    """``node`` is where it happens; ``report`` hears of every step before it is carried out."""

    def __init__(self, node: Node, options: Options, report: Callable[[int, int, str], None]) -> None:
        self._node, self._options, self._report = node, options, report
        self._journal = Journal(node.place.state_dir / FILE)

    async def prepare(self, direction: Direction) -> Prepared:
        """Look, and change nothing. Raises Stopped where not even a plan can be made."""
        last = self._last()
        if last is not None and not last.ended and last.direction == direction:
            made = plan(direction, last.facts)
            return Prepared(direction=direction, facts=last.facts, plan=made, done=last.done, resumed=True)
        if last is not None and last.ended and last.direction == direction and self._stands(direction, last):
            return Prepared(direction=direction, facts=last.facts, plan=(), found=("it is done already",))
        facts = Facts(
            conf=self._conf(direction, last),
            tools=tuple((b, f) for b in BACKENDS for f in FAMILIES if self._node.firewall.available(b, f)),
            save_folder=str(self._node.place.state_dir / f"canal-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"),
            switch_text=configuration.conflist(),
            labelled=self._options.label,
            patience=self._options.patience,
            portmap=last.facts.portmap if last is not None else None,
            multus=self._multus(direction, last),
        )
        prepared = Prepared(direction=direction, facts=facts, plan=plan(direction, facts))
        if direction == "handback":
            pods = len(self._guarded(self._node.wired))
            return msgspec.structs.replace(prepared, found=(f"{pods} pods of Towpath's",))
        half_way = last is not None and not last.ended
        return self._where_portmap(await self._judged(prepared, half_way=half_way))

    def _stands(self, direction: Direction, last: Run) -> bool:
        """Whether what an earlier run came to is still so."""
        wanted = TOWPATH_CONFLIST if direction == "takeover" else last.facts.conf.file
        held = hold.held(self._node.place.state_dir)
        return self._node.place.in_force() == wanted and (held is None) == (direction == "takeover")

    def _where_portmap(self, prepared: Prepared) -> Prepared:
        """For a handback: the node's portmap must find again what it is made to do then."""
        conf = prepared.facts.conf
        found = [kind for (kind, _), of in self._node.tables().items() if publishes(of, conf.network)]
        portmap = found[0] if found else prepared.facts.portmap
        facts = msgspec.structs.replace(prepared.facts, portmap=portmap)
        return msgspec.structs.replace(prepared, facts=facts, plan=plan(prepared.direction, facts))

    def _last(self) -> Run | None:
        try:
            return self._journal.last()
        except JournalUnreadable as error:
            fix = "move the file aside; the command then finds out what is left to do"
            raise Stopped(
                Finding(code="TP7112", object=str(self._journal.path), message=str(error), fix=fix)
            ) from error

    def _conf(self, direction: Direction, last: Run | None) -> CanalConf:
        try:
            if self._options.canal_conflist is not None:
                return parse("10-canal.conflist", self._options.canal_conflist.read_text())
            return self._node.place.canal_conf()
        except (NotCanal, OSError) as error:
            if last is not None:
                return last.facts.conf
            code = "TP7101" if direction == "takeover" else "TP7111"
            fix = (
                "nothing is to be taken over where Canal never was"
                if direction == "takeover"
                else "give Canal's conflist with --canal-conflist"
            )
            raise Stopped(
                Finding(code=code, object=str(self._node.place.cni_conf), message=str(error), fix=fix)
            ) from error

    def _multus(self, direction: Direction, last: Run | None) -> MultusConf | None:
        """On the way back it is the one that was there before."""
        before = last.facts.multus if last is not None else None
        found = self._node.place.multus_conf()
        return (before or found) if direction == "handback" else (found or before)

    async def _judged(self, prepared: Prepared, *, half_way: bool) -> Prepared:
        """``half_way`` through a handback Towpath's configuration may be in force already, or still."""
        conf = prepared.facts.conf
        try:
            evidence = self._node.evidence(conf)
            found = self._node.adoption(conf, await self._node.known(conf.network))
        except ClusterUnknown as error:
            fix = "see to the API server, or give --kubeconfig"
            raise Stopped(Finding(code="TP7114", object="API server", message=str(error), fix=fix)) from error
        except (ToolFailed, KernelRefused, LeaseStoreError) as error:
            raise Stopped(_failed(error)) from error
        if half_way:
            evidence = msgspec.structs.replace(evidence, other_config="")
        every = [*refusals(evidence), *found.problems]
        warnings = [finding for finding in every if finding.code in self._options.allow]
        if found.leaked:
            warnings.append(_leaked(len(found.leaked), conf.network))
        told = (
            f"configuration {conf.file}, network {conf.network}",
            f"{len(found.attachments)} pods with "
            f"{sum(len(att.addresses) for att in found.attachments)} addresses, "
            f"{sum(len(att.ports) for att in found.attachments)} host ports, "
            f"{sum(att.bandwidth is not None for att in found.attachments)} limits",
            *summary(evidence.owned),
            *(f"nftables table {family} {name}" for family, name in evidence.nft_chains),
            f"{len(self._node.firewall.sets())} IP sets",
            *processes.canal_daemons(),
        )
        return msgspec.structs.replace(
            prepared,
            found=told,
            warnings=tuple(warnings),
            refused=tuple(finding for finding in every if finding.code not in self._options.allow),
        )

    async def carry_out(self, prepared: Prepared) -> None:
        """Do what is not done yet. Raises Stopped; the same command then goes on where it stopped."""
        done = prepared.done
        if not prepared.resumed:
            self._journal.start(prepared.direction, prepared.facts)
        for number, step in enumerate(prepared.plan):
            if number in done:
                continue
            self._report(number + 1, len(prepared.plan), step.describe())
            self._journal.begin(number, step.describe())
            await self._carry_out(step, prepared)
            self._journal.done(number)
        self._journal.end()

    async def _carry_out(self, step: steps.Step, prepared: Prepared) -> None:
        try:
            await self._step(step, prepared.facts)
        except (
            ToolFailed,
            KernelRefused,
            LeaseStoreError,
            JournalError,
            HostLocalBusy,
            OSError,
        ) as error:
            raise Stopped(_failed(error)) from error
        except ClusterUnknown as error:
            fix = "see to the API server, or to RBAC; then give the command again"
            raise Stopped(Finding(code="TP7114", object="API server", message=str(error), fix=fix)) from error

    async def _step(self, step: steps.Step, facts: Facts) -> None:  # noqa: C901 - one line a step
        node = self._node
        match step:
            case steps.SaveState():
                save(node, facts.conf, Path(step.folder))
            case steps.HoldAgent():
                now = hold.held(node.place.state_dir)
                if not (step.at_least and now is not None and now.scope == "all"):
                    hold.hold(node.place.state_dir, step.scope, step.reason)
            case steps.ReleaseAgent():
                hold.release(node.place.state_dir)
            case steps.SwitchConf():
                node.place.switch(step.on, step.off, step.text)
            case steps.AwaitCalls():
                await self._await_calls(step)
            case steps.ImportLeases():
                await taking.import_leases(node, facts, final=step.final)
            case steps.AwaitRules():
                await taking.await_rules(node, step)
            case steps.Announce():
                await node.cluster.announce(step.value)
            case steps.AwaitDaemons():
                await taking.await_daemons(node, facts, step)
            case steps.RemoveRules():
                taking.remove_rules(node, facts, step)
            case steps.RemoveNftTables():
                taking.remove_nft(node, facts)
            case steps.RemoveSets():
                taking.remove_sets(node)
            case steps.RemoveIfbs():
                taking.remove_ifbs(node, facts)
            case steps.VerifyGone():
                await taking.verify_gone(node, facts)
            case steps.RetireLeases():
                node.place.retire_leases(facts.conf)
            case steps.ImportNetworks():
                await networks.import_networks(node, facts, final=step.final)
            case steps.RetireNetworks():
                networks.put_aside(node, facts)
            case _:
                await self._handback_step(step, facts)

    async def _handback_step(self, step: steps.Step, facts: Facts) -> None:
        node = self._node
        match step:
            case steps.ExportLeases():
                giving.export_leases(node, facts, final=step.final)
            case steps.ExportNetworks():
                networks.export_networks(node, facts)
            case steps.RestoreConf():
                node.place.restore(step.on, step.text)
            case steps.AwaitCanal():
                await giving.await_canal(node, step)
            case steps.RestorePorts():
                giving.restore_ports(node, facts)
            case steps.AwaitAgent():
                await giving.await_agent(node, step)
            case steps.RestoreLimits():
                giving.restore_limits(node, facts)
            case steps.RemoveTable():
                giving.remove_table(node)
            case steps.RetireStore():
                node.place.retire_store()

    async def _await_calls(self, step: steps.AwaitCalls) -> None:
        busy = await self._node.until(lambda: processes.calls(step.plugins), step.patience, step.quiet)
        if busy:
            fix = "see what they wait for; then give the command again"
            message = "do not end" if len(busy) > 1 else "does not end"
            raise Stopped(Finding(code="TP7119", object=", ".join(busy[:5]), message=message, fix=fix))

    def _guarded(self, look: Callable[[], tuple[object, ...]]) -> tuple[object, ...]:
        try:
            return look()
        except (LeaseStoreError, KernelRefused) as error:
            raise Stopped(_failed(error)) from error


def _failed(error: Exception) -> Finding:
    fix = "remove the cause; then give the command again"
    return Finding(code="TP7115", object="this node", message=str(error), fix=fix)


def _leaked(number: int, network: str) -> Finding:
    return Finding(
        code="TP7113",
        object=f"network {network}",
        message=f"{number} leases have no pod behind them and are not imported",
        fix="nothing: their addresses become free",
        severity="info",
    )
