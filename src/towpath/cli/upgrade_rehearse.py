"""``towpath upgrade rehearse``: the same plan in a twin first."""

import asyncio
import os
import time
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
from towpath.cli.upgrade_plan import read_plan
from towpath.cli.upgrade_report import write
from towpath.inventory.cluster import Inventory
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.lab import twin as twins
from towpath.lab import twin_up
from towpath.lab.rundir import LabError
from towpath.lab.twin_plan import stand_in, twin_plan
from towpath.upgrade import plan as plans
from towpath.upgrade.conductor import Conductor, Ended
from towpath.upgrade.gates import Verdict, judge
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Plan, Rehearsal
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
@click.option("--keep", is_flag=True, help="Leave the twin running, to look at it.")
@cluster_options
@click.pass_context
def rehearse(
    ctx: click.Context,
    file: Path,
    source: Path | None,
    nodes: int,
    pods: int,
    keep: bool,
    kubeconfig: str,
    context: str,
) -> None:
    """Carry out the plan in FILE in a twin of the cluster on this machine, and write into FILE how it went.

    The twin is a lab with the cluster's nodes, pods, labels, addresses and policies. It shows that the
    archive can be restored, that the policies are understood, and that the plan comes to its end. The pods of
    a network that is not Towpath's are stand-ins there. The plan's hash stays what it was.

    Exit code 3 when the twin is not as the archive, 4 when the upgrade did not come to its end there.
    """
    made = read_plan(file)
    if made.migration is not None:
        raise CliError(
            "a twin is Towpath's from the start: try a migration in a lab (towpath lab up --cni canal)",
            USAGE,
        )
    options = ClusterOptions(kubeconfig, context)
    archive, from_ = _source(source, options)
    twin = twins.twin(f"twin-{os.getpid()}", from_, nodes, pods)
    try:
        with twin_up.running(twin, progress, keep=keep) as twin_config:
            found, differs = asyncio.run(_rehearsed(twin_config, twin, archive, made))
    except LabError as e:
        raise CliError(f"there is no twin: {e}") from e
    except KubeError as e:
        raise CliError(f"in the twin: {e}") from e
    progress_done()
    rehearsal = Rehearsal(
        plan=made.hash,
        taken=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        source=str(source) if source else "the live cluster",
        nodes=len(twin.nodes),
        pods=sum(one["kind"] == "Pod" for one in twin.pods),
        mode=found.mode,
        seconds=found.seconds,
        why="" if found.mode == "done" else found.records[-1].text if found.records else "",
        level=found.level,
        notes=twin.notes,
        differs=tuple(differs),
    )
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
    twin_config: Path, twin: twins.Twin, archive: Archive | None, made: Plan
) -> tuple[Report, list[str]]:
    """Fill the twin, compare it with the archive, conduct the plan in it. Raises KubeError, LabError."""
    async with Client(config.from_files([twin_config]), user_agent="towpath-twin") as client:
        differs = await twin_up.fill(client, twin, progress)
        if archive is not None:
            differs += await twin_up.differences(client, archive, twin, progress)
        await stand_in(client, made)
        found = await survey(client, datetime.now(UTC), progress)
        planned = twin_plan(made, found, twin.nodes)
        logbook = Logbook(client)
        await logbook.begin(planned)
        await _conduct(client, logbook)
        known = await logbook.read()
    if known is None:
        raise LabError("the journal of the rehearsal has gone")
    return report_of(*known, None, time.time()), differs


async def _conduct(client: Client, logbook: Logbook) -> Ended:
    patterns = load.builtin().known.log

    async def judged(plan: Plan, node: str, soak: float) -> Verdict:
        return await judge(client, plan, node, soak, patterns)

    return await Conductor(client, logbook, judged, progress).run()


def screen(found: Rehearsal) -> str:
    """For a person."""
    good = found.mode == "done"
    what = "came to its end" if good else f"did not come to its end ({found.mode}): {found.why}"
    lines = [
        f"twin of {found.source}: {found.nodes} nodes, {found.pods} pods",
        mark(f"the plan {what}, in {found.seconds:.1f} s", "ok" if good else "error"),
        *(f"not as in the cluster: {note}" for note in found.notes),
        *(mark(f"differs: {one}", "warning") for one in found.differs),
    ]
    return "\n".join(lines)
