"""``towpath upgrade rehearse``: the same plan in a twin first."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from towpath.backup.archive import Archive, ArchiveError, unpack
from towpath.backup.saving import save
from towpath.catalogue import load
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, GATE_FAILED, USAGE, CliError
from towpath.cli.output import mark, progress, progress_done
from towpath.cli.rehearse_migration import migration_plan, prepare
from towpath.cli.upgrade_measure import measured
from towpath.cli.upgrade_plan import read_plan
from towpath.cli.upgrade_report import write
from towpath.inventory.cluster import Inventory
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.lab import twin as twins
from towpath.lab import twin_up
from towpath.lab.canal import programs
from towpath.lab.client import LabClient
from towpath.lab.outside import OutsideHost
from towpath.lab.rundir import LabError
from towpath.lab.twin_plan import stand_in, twin_measure, twin_plan
from towpath.probe.cluster import ProbeFailed
from towpath.upgrade import plan as plans
from towpath.upgrade.conductor import Conductor, Ended
from towpath.upgrade.gates import Verdict, judge
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Measure, Plan, Rehearsal
from towpath.upgrade.probing import RollProbes
from towpath.upgrade.report import Report
from towpath.upgrade.report import report as report_of
from towpath.upgrade.report_page import page
from towpath.upgrade.survey import survey


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An archive (towpath backup) or inventory (towpath inventory -o json); default: the live cluster.",
)
@click.option("--nodes", default=0, help="At most so many nodes (default: all, up to 200).")
@click.option("--pods", default=0, help="At most so many pods (default: all).")
@click.option(
    "--probes/--no-probes",
    default=True,
    help="Probe all paths of the twin, if the plan has probes (at most twenty nodes).",
)
@click.option("--keep", is_flag=True, help="Leave the twin running, to look at it.")
@cluster_options
@click.pass_context
def rehearse(
    ctx: click.Context,
    file: Path,
    source: Path | None,
    nodes: int,
    pods: int,
    probes: bool,
    keep: bool,
    kubeconfig: str,
    context: str,
) -> None:
    """Carry out the plan in FILE in a twin of the cluster on this machine, and write into FILE how it went.

    The twin is a lab with the cluster's nodes, pods, labels, addresses and policies. It shows that the
    archive can be restored, that the policies are understood, and that the plan comes to its end. The pods of
    a network that is not Towpath's are stand-ins there; in the twin of a migration they are Canal's, with its
    rules, tunnels and leases, and for the way back to Canal the plan's nodes become Towpath's first. The
    plan's hash stays what it was.

    If the plan has probes, they ask in the twin too. What a node's turn costs there is told and stops
    nothing: this machine is not as fast as your nodes.

    Exit code 3 when the twin is not as the archive, 4 when the upgrade did not come to its end there.
    """
    made = read_plan(file)
    moves = made.migration is not None
    options = ClusterOptions(kubeconfig, context)
    archive, from_ = _source(source, options)
    twin = twins.twin(f"twin-{os.getpid()}", from_, nodes, pods, "canal" if moves else "towpath")
    try:
        if moves:
            programs.require()
        measure, unprobed = twin_measure(made, twin.nodes) if probes else (None, ())
        with twin_up.running(twin, progress, keep=keep) as there:
            found, differs = asyncio.run(_rehearsed(there, twin, archive, made, measure))
    except LabError as e:
        raise CliError(f"there is no twin: {e}") from e
    except KubeError as e:
        raise CliError(f"in the twin: {e}") from e
    except ProbeFailed as e:
        raise CliError(f"TP7408 probes cannot run in the twin: {e} (--no-probes does without)") from e
    progress_done()
    twin = twin._replace(notes=(*twin.notes, *unprobed))
    rehearsal = _rehearsal(made, str(source) if source else "the live cluster", twin, found, differs)
    write(file, plans.dump(msgspec.structs.replace(made, rehearsal=rehearsal)).decode())
    report = file.with_suffix(".rehearsal.html")
    write(report, page(found))
    click.echo(screen(rehearsal))
    click.echo(f"report: {report.absolute()}")
    if keep:
        click.echo(f"the twin runs on: towpath lab down --name {twin.spec.name} ends it")
    if rehearsal.mode != "done":
        ctx.exit(GATE_FAILED)
    if rehearsal.differs:
        ctx.exit(FINDING)


def _rehearsal(made: Plan, source: str, twin: twins.Twin, found: Report, differs: list[str]) -> Rehearsal:
    return Rehearsal(
        plan=made.hash,
        taken=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        source=source,
        nodes=len(twin.nodes),
        pods=sum(one["kind"] == "Pod" for one in twin.pods),
        mode=found.mode,
        seconds=found.seconds,
        why="" if found.mode == "done" else found.records[-1].text if found.records else "",
        level=found.level,
        asked=found.asked,
        lost=sum(path.seen.lost for path in found.lost),
        notes=twin.notes,
        differs=tuple(differs),
    )


def _source(file: Path | None, options: ClusterOptions) -> tuple[Archive | None, twins.Source]:
    if file is None:
        archive = options.run(lambda client: save(client, progress))
        return archive, twins.from_archive(archive)
    try:
        data = file.read_bytes()
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    if data.lstrip()[:1] == b"{":
        try:
            return None, twins.from_inventory(msgspec.json.decode(data, type=Inventory))
        except msgspec.DecodeError as e:
            raise CliError(f"{file} is no inventory (towpath inventory -o json): {e}", USAGE) from e
    try:
        archive = unpack(data)
    except ArchiveError as e:
        raise CliError(f"TP7201 {file}: {e}", USAGE) from e
    return archive, twins.from_archive(archive)


async def _rehearsed(
    there: twin_up.Running,
    twin: twins.Twin,
    archive: Archive | None,
    made: Plan,
    measure: Measure | None,
) -> tuple[Report, list[str]]:
    """Compare the twin with the archive, conduct the plan in it. Raises KubeError, LabError."""
    async with Client(config.from_files([there.kubeconfig]), user_agent="towpath-twin") as client:
        differs = there.wrong
        if archive is not None:
            differs += await twin_up.differences(client, archive, twin, progress)
        logbook = Logbook(client)
        await logbook.begin(await _planned(client, twin, made, logbook))
        async with AsyncExitStack() as stack:
            probes = None
            if measure is not None:
                outside = OutsideHost(LabClient(twin.spec.name))
                probes = await stack.enter_async_context(RollProbes(client, measure, outside, progress))
            await _conduct(client, logbook, probes)
        known = await logbook.read()
    if known is None:
        raise LabError("the journal of the rehearsal has gone")
    return report_of(*known, None, time.time()), differs


async def _planned(client: Client, twin: twins.Twin, made: Plan, logbook: Logbook) -> Plan:
    """The plan, for the twin, which is brought to where the plan begins. Raises KubeError, LabError."""

    async def found() -> Inventory:
        return await survey(client, datetime.now(UTC), progress)

    if made.migration is None:
        await stand_in(client, made)
        return twin_plan(made, await found(), twin.nodes)
    await prepare(client, await found())
    if made.migration.direction == "handback":
        await logbook.begin(await migration_plan(client, made, await found(), twin.nodes, "takeover"))
        ended = await _conduct(client, logbook, None)
        if ended.mode != "done":
            raise LabError(f"its nodes did not become Towpath's, as the cluster's are: {ended.text}")
    return await migration_plan(client, made, await found(), twin.nodes, made.migration.direction)


async def _conduct(client: Client, logbook: Logbook, probes: RollProbes | None) -> Ended:
    patterns = load.builtin().known.log

    async def judged(plan: Plan, node: str, soak: float) -> Verdict:
        more = measured(client, plan, logbook, node, probes)
        return await judge(client, plan, node, soak, patterns, [(name, _told(ask)) for name, ask in more])

    return await Conductor(client, logbook, judged, progress).run()


def _told(ask: Callable[[], Awaitable[Verdict]]) -> Callable[[], Awaitable[Verdict]]:
    """A gate whose answer is kept, and holds nobody up."""

    async def told() -> Verdict:
        return (await ask())._replace(state="pass")

    return told


def screen(found: Rehearsal) -> str:
    """For a person."""
    good = found.mode == "done"
    what = "came to its end" if good else f"did not come to its end ({found.mode}): {found.why}"
    lines = [
        f"twin of {found.source}: {found.nodes} nodes, {found.pods} pods",
        mark(f"the plan {what}, in {found.seconds:.1f} s", "ok" if good else "error"),
        *([f"probes in the twin: {found.probed}"] if found.probed else []),
        *(f"not as in the cluster: {note}" for note in found.notes),
        *(mark(f"differs: {one}", "warning") for one in found.differs),
    ]
    return "\n".join(lines)
