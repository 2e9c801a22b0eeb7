"""``towpath upgrade …``: a new version of the pod network, node by node, with gates and a way back."""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from towpath.catalogue import load
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import GATE_FAILED, PRECONDITION, ROLLED_BACK, USAGE, CliError
from towpath.cli.output import emit, mark, output_option, table
from towpath.cli.upgrade_measure import measured, start_probes
from towpath.cli.upgrade_nodes import freeze, plans, unfreeze
from towpath.cli.upgrade_plan import misfit_text, plan, read_plan
from towpath.cli.upgrade_rehearse import rehearse
from towpath.cli.upgrade_report import gather, report
from towpath.cli.upgrade_report import write as write_report
from towpath.cli.upgrade_watch import watch
from towpath.kube.client import Client
from towpath.upgrade.actions import Note, Wait
from towpath.upgrade.announce import announce
from towpath.upgrade.clock import LIMIT, skew
from towpath.upgrade.conduct import next_action
from towpath.upgrade.conductor import Conductor, Ended, look
from towpath.upgrade.exclusion import Held, alone
from towpath.upgrade.gates import Verdict, judge
from towpath.upgrade.journal import ENDED, Event, Journal, Record
from towpath.upgrade.logbook import Logbook, Unreadable
from towpath.upgrade.plan import Plan
from towpath.upgrade.report import stands
from towpath.upgrade.report_page import page
from towpath.upgrade.rights import missing
from towpath.upgrade.seen import Seen

WEBHOOK = click.option(
    "--webhook",
    default="",
    metavar="URL",
    envvar="TOWPATH_WEBHOOK",
    help="Told (POST, JSON) when it stands still or was rolled back.",
)
REPORT = click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the report goes at the end (default: beside the plan, or here).",
)


@click.group()
def command() -> None:
    """Take the pod network to another version, node by node.

    plan writes down what will be done; apply does it, and stops where a node does not pass its gates; status
    shows where it stands. pause, resume and rollback may be said from any terminal.
    """


def _conducted(options: ClusterOptions, begin: Callable[[Client, Logbook], Awaitable[None]]) -> Ended:
    """Begin, and conduct to the end. Raises Held when another does."""
    patterns = load.builtin().known.log

    async def work(client: Client) -> Ended:
        logbook = Logbook(client)
        identity = f"{socket.gethostname()}-{os.getpid()}"

        async with alone(client, identity), AsyncExitStack() as stack:
            await begin(client, logbook)
            probes = await start_probes(client, options, logbook, stack, _tell)

            async def judged(made: Plan, node: str, soak: float) -> Verdict:
                more = measured(client, made, logbook, node, probes)
                return await judge(client, made, node, soak, patterns, more)

            return await Conductor(client, logbook, judged, _tell).run()

    try:
        return options.run(work)
    except Unreadable as e:
        raise CliError(f"TP7403 {e}") from e


def _tell(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def _finish(ctx: click.Context, options: ClusterOptions, ended: Ended, file: Path, webhook: str = "") -> None:
    _report(options, file)
    _announce(options, ended, webhook)
    match ended.mode:
        case "done":
            click.echo(mark("upgraded: every node has passed its gates", "ok"))
        case "rolled-back":
            click.echo(mark("rolled back: every node has what it had before", "warning"))
            ctx.exit(ROLLED_BACK)
        case "aborted":
            click.echo(mark(f"aborted: {ended.text}", "warning"))
            ctx.exit(GATE_FAILED)
        case _:
            click.echo(mark(f"paused: {ended.text}", "error"))
            click.echo("look with `towpath upgrade status`; then `towpath upgrade resume` or `… rollback`")
            ctx.exit(GATE_FAILED)


def _report(options: ClusterOptions, file: Path) -> None:
    """However it ended: a report that cannot be made or written changes nothing of that."""
    try:
        found = options.run(gather)
        write_report(file, page(found))
    except (CliError, Unreadable) as e:
        click.echo(f"there is no report: {e}", err=True)
        return
    click.echo(f"report: {file.absolute()}")
    if found.level:
        lost = sum(loss.seen.lost for loss in found.lost)
        click.echo(f"{found.level}: {lost} of {found.asked:,} lost. {found.cost}")


def _announce(options: ClusterOptions, ended: Ended, webhook: str) -> None:
    async def work(client: Client) -> list[str]:
        known = await Logbook(client).read()
        return await announce(client, known[0], ended.mode, ended.text, webhook) if known else []

    try:
        for wrong in options.run(work):
            click.echo(wrong, err=True)
    except (CliError, Unreadable) as e:
        click.echo(f"nobody could be told: {e}", err=True)


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@REPORT
@WEBHOOK
@cluster_options
@click.pass_context
def apply(
    ctx: click.Context, file: Path, report_file: Path | None, webhook: str, kubeconfig: str, context: str
) -> None:
    """Carry out the plan in FILE. The same command takes up a run that was killed; one that is done is done.

    Exit code 0 when all nodes are upgraded, 4 when it stands still at a node that did not pass (which has its
    old version again), 5 when it was rolled back.
    """
    made = read_plan(file)

    async def begin(client: Client, logbook: Logbook) -> None:
        known = await logbook.read()
        if (
            known is not None
            and known[0].hash == made.hash
            and known[1].mode not in ("rolled-back", "aborted")
        ):
            return  # under way, or done
        if abs(ahead := await skew(client)) > LIMIT:
            raise CliError(
                f"TP7411 this machine's clock is {ahead:+.0f} s from the API server's", PRECONDITION
            )
        if found := await misfit_text(client, made):
            raise CliError(f"TP7401 {file} no longer fits the cluster: {found}", PRECONDITION)
        await logbook.begin(made)

    options = ClusterOptions(kubeconfig, context)
    if refused := options.run(lambda client: missing(client, made)):
        raise CliError(f"TP7413 nothing was done: this identity may not {'; '.join(refused)}", PRECONDITION)
    try:
        ended = _conducted(options, begin)
    except Held as e:
        raise CliError(f"TP7402 {e}") from e
    _finish(ctx, options, ended, report_file or file.with_suffix(".report.html"), webhook)


def _word(
    ctx: click.Context,
    options: ClusterOptions,
    event: Event,
    refused: Callable[[Journal], str],
    file: Path | None,
    webhook: str,
) -> None:
    async def begin(_: Client, logbook: Logbook) -> None:
        await _say(logbook, event, refused)

    try:
        ended = _conducted(options, begin)
    except Held:
        _leave_word(options, event, refused)
        click.echo(f"{event}: the conductor at work does it; `towpath upgrade status --watch` shows how")
        return
    _finish(ctx, options, ended, file or Path("towpath-upgrade.report.html"), webhook)


def _leave_word(options: ClusterOptions, event: Event, refused: Callable[[Journal], str]) -> None:
    async def work(client: Client) -> None:
        await _say(Logbook(client), event, refused)

    try:
        options.run(work)
    except Unreadable as e:
        raise CliError(f"TP7403 {e}") from e


async def _say(logbook: Logbook, event: Event, refused: Callable[[Journal], str]) -> None:
    if await logbook.read() is None:
        raise CliError("no upgrade was ever begun here")
    await logbook.say(Record(event, round(time.time(), 3), text="by hand"), refused)


def _ended(journal: Journal) -> str:
    return f"it has ended already ({journal.mode})" if journal.mode in ENDED else ""


@command.command()
@cluster_options
def pause(kubeconfig: str, context: str) -> None:
    """Stand still after the step that is being done; a running `apply` ends with exit code 4."""

    _leave_word(ClusterOptions(kubeconfig, context), "pause", _ended)
    click.echo("paused; `towpath upgrade resume` goes on")


@command.command()
@REPORT
@WEBHOOK
@cluster_options
@click.pass_context
def resume(ctx: click.Context, report_file: Path | None, webhook: str, kubeconfig: str, context: str) -> None:
    """Go on with an upgrade that stands still. A node that failed is tried again."""
    _word(ctx, ClusterOptions(kubeconfig, context), "resume", _ended, report_file, webhook)


@command.command()
@REPORT
@WEBHOOK
@cluster_options
@click.pass_context
def rollback(
    ctx: click.Context, report_file: Path | None, webhook: str, kubeconfig: str, context: str
) -> None:
    """Give every node the version it had before, the last one first."""

    def refused(journal: Journal) -> str:
        return "it was rolled back already" if journal.mode == "rolled-back" else ""

    _word(ctx, ClusterOptions(kubeconfig, context), "rollback", refused, report_file, webhook)


@command.command()
@REPORT
@WEBHOOK
@cluster_options
@click.pass_context
def abort(ctx: click.Context, report_file: Path | None, webhook: str, kubeconfig: str, context: str) -> None:
    """End it with every node as it is: no other is begun, and nothing rolls by itself afterwards.

    A node in the middle of its turn gets its old version back. A running `apply` in another terminal does
    it and ends. A new plan goes on from there; rollback still gives every node what it had.
    """
    _word(ctx, ClusterOptions(kubeconfig, context), "abort", _ended, report_file, webhook)


@command.command()
@click.option("--watch", is_flag=True, help="Show it again whenever it changes, until it ends.")
@cluster_options
@output_option
def status(watch: bool, kubeconfig: str, context: str, output: str) -> None:
    """Where the upgrade stands: every node, what it has, what has happened."""

    async def once(client: Client) -> dict[str, Any]:
        known = await Logbook(client).read()
        if known is None:
            raise CliError("no upgrade was ever begun here")
        return await _standing(client, *known)

    async def work(client: Client) -> None:
        shown: dict[str, Any] = {}
        while True:
            now = await once(client)
            if now != shown:
                emit(now, output, partial(_screen, now))
            if not watch or now["mode"] in ENDED:
                return
            shown = now
            await asyncio.sleep(1.0)

    try:
        ClusterOptions(kubeconfig, context).run(work)
    except Unreadable as e:
        raise CliError(f"TP7403 {e}", USAGE) from e


async def _standing(client: Client, made: Plan, journal: Journal) -> dict[str, Any]:
    seen = await look(client, made)
    nodes = []
    for step in made.nodes:
        pod = seen.pods.get(step.node)
        last = journal.last(("touch", "passed", "gone", "failed", "restored"), step.node)
        nodes.append(
            {
                "node": step.node,
                "has": stands(made, seen, step.node),
                "ready": bool(pod and pod.ready),
                "state": last.event if last else "waiting",
                "why": last.text if last else step.reason,
            }
        )
    return {
        "daemonset": f"{made.namespace}/{made.daemonset}",
        "from": made.source,
        "to": made.target,
        "mode": journal.mode,
        "next": _next(made, journal, seen),
        "nodes": nodes,
        "journal": [msgspec.to_builtins(record) for record in journal.records],
    }


def _next(made: Plan, journal: Journal, seen: Seen) -> str:
    """What a conductor would do now, in words."""
    match next_action(made, journal, seen, time.time()):
        case None:
            return ""
        case Wait(why, None):
            return f"somebody's word: {why}" if why else "somebody's word"
        case Wait(why):
            return f"wait for {why}"
        case Note(event, node):
            return " ".join(filter(None, (event, node)))
        case action:
            return action.describe()


def _screen(now: dict[str, Any]) -> str:
    rows = [[n["node"], n["has"], "yes" if n["ready"] else "no", n["state"], n["why"]] for n in now["nodes"]]
    state = {"done": "ok", "forward": "ok"}.get(now["mode"], "warning")
    head = f"{now['daemonset']} {now['from']} → {now['to']}: {mark(now['mode'], state)}"
    following = f"\nnext: {now['next']}" if now["next"] else ""
    return f"{head}{following}\n\n{table(['NODE', 'HAS', 'READY', 'STATE', 'WHY'], rows)}"


command.add_command(plan)
command.add_command(rehearse)
command.add_command(watch)
command.add_command(freeze)
command.add_command(unfreeze)
command.add_command(plans)
command.add_command(report)
