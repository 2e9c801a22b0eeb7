"""``towpath probe``: what a pod network loses while something is done to it, on any cluster."""

import asyncio
import contextlib
import datetime
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, INCONCLUSIVE, INTERRUPTED, PRECONDITION, USAGE, CliError
from towpath.cli.output import progress, progress_done
from towpath.kube.client import Client
from towpath.probe import cluster
from towpath.probe.cluster import ProbeFailed
from towpath.probe.levels import Level
from towpath.probe.live import Screen, whole
from towpath.probe.paths import Wanted
from towpath.probe.plan import Kind
from towpath.probe.result import Mark, Result, result
from towpath.probe.run import ProbeRun
from towpath.probe.source import Outside

_DAY = 86400.0
_TITLE = 120  # characters of a command
_GONE = "prober gone"
_TAIL = 2.0  # seconds after a command has ended
_ORDER = [Level.H0, Level.H1, Level.H2, Level.DISRUPTIVE, Level.UNKNOWN]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    image: str
    seconds: float
    control: float
    origins: tuple[str, ...]
    slower: float
    kinds: tuple[Kind, ...]
    budget_ms: float
    title: str
    command: tuple[str, ...]
    network: str = ""


@click.group(invoke_without_command=True)
@cluster_options
@click.option("--image", default="", help="Image with towpath in it (default: that of the cluster's agent).")
@click.option("--network", default="", metavar="NAMESPACE/NAME",
              help="A NetworkAttachmentDefinition that the pods get as well: a path of its own.")  # fmt: skip
@click.option(
    "--seconds", default=30.0, show_default=True, help="How long, after the control window; 0: until Ctrl-C."
)
@click.option(
    "--control", default=5.0, show_default=True, help="Seconds before, with which the rest is compared."
)
@click.option("--node", "nodes", multiple=True, help="A node that probes, and the one after it (repeatable).")
@click.option("--slower", default=1.0, show_default=True, help="Stretch all intervals, for small machines.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in Kind]),
    help="Only these kinds.",
)
@click.option("--budget", default=1000.0, show_default=True, help="Longest gap in ms that level H2 allows.")
@click.option("--require", type=click.Choice(["H0", "H1", "H2"]), default="H0", show_default=True,
              help="Exit code 3 when the level is worse.")  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report, one page.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
              help="Write everything, bitmaps and histograms included; - is stdout.")  # fmt: skip
@click.option("--title", default="", help="What is being done, for the report.")
@click.option("--while", "during", metavar="COMMAND", default="",
              help="Run this shell command after the control window, and end soon after it has.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, kubeconfig: str, context: str, require: str, **given: Any) -> None:
    """What the pod network loses while something is done to it: restart an agent, upgrade, pull a cable.

    Puts a DaemonSet and a few pods into a namespace of its own, asks questions of six kinds on every path at
    fixed moments, shows a strip a path while it runs, and removes everything at the end. Works on any
    cluster, whatever its CNI. Ctrl-C ends it with what there is.
    """
    if ctx.invoked_subcommand:
        return
    options = _options(**given)
    chosen = ClusterOptions(kubeconfig, context)
    lab = lab_of(kubeconfig, context)

    async def work(client: Client) -> tuple[Result, list[str], bool]:
        outside: Outside | None = None
        if lab:
            from towpath.lab.outside import OutsideHost

            outside = OutsideHost(lab)
        return await measure(client, options, outside)

    try:
        outcome, strips, interrupted = chosen.run(work)
    except ProbeFailed as failed:
        raise CliError(f"probe: {failed}", PRECONDITION) from failed
    report(outcome, strips, given["html"], given["json_file"])
    ctx.exit(exit_code(outcome.judgement.level, Level(require), interrupted=interrupted))


def _options(**given: Any) -> Options:
    if given["seconds"] < 0 or given["control"] < 0 or given["slower"] < 0.2 or given["budget"] < 0:
        raise CliError(
            "probe: --seconds, --control and --budget are not negative, --slower at least 0.2", USAGE
        )
    if given["network"] and not all(given["network"].partition("/")):
        raise CliError(f"probe: --network {given['network']}: NAMESPACE/NAME is wanted", USAGE)
    for path in (given["html"], given["json_file"]):
        if path and str(path) != "-" and not path.absolute().parent.is_dir():
            raise CliError(f"probe: there is no folder {path.absolute().parent} to write {path.name} to")
    during: str = given["during"]
    return Options(
        image=given["image"],
        network=given["network"],
        seconds=given["seconds"],
        control=given["control"],
        origins=given["nodes"],
        slower=given["slower"],
        kinds=tuple(Kind(kind) for kind in given["kinds"]) or tuple(Kind),
        budget_ms=given["budget"],
        title=given["title"] or (during and f"Pod network during `{_short(during)}`") or "Pod network",
        command=("/bin/sh", "-c", during) if during else (),
    )


def _short(command: str) -> str:
    """A command as part of a title: on one line, and no longer than reads well."""
    line = " ".join(command.split())
    return line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…"


def exit_code(level: Level, required: Level, *, interrupted: bool) -> int:
    """0 when as good as required, 3 when worse, 6 when nobody can say; an interrupted run says so if good."""
    if level is Level.UNKNOWN:
        return INCONCLUSIVE
    if _ORDER.index(level) > _ORDER.index(required):
        return FINDING
    return INTERRUPTED if interrupted else 0


async def measure(
    client: Client, options: Options, outside: Outside | None
) -> tuple[Result, list[str], bool]:
    """The whole run. Returns its result, strips for the terminal, and whether Ctrl-C ended it."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    image, python = await cluster.image_for(client, options.image, in_lab=outside is not None)
    for name, over in (await cluster.leftovers(client, datetime.datetime.now(datetime.UTC))).items():
        if over:
            progress(f"removing {name}, left by an earlier run")
            await cluster.remove(client, name)
    open_ended = options.command or not options.seconds
    longest = options.control + (_DAY if open_ended else options.seconds)
    new = cluster.new_run(image, python, longest, options.network)
    async with ProbeRun(client, new, outside=outside, say=progress) as probing:
        ready = asyncio.create_task(_prepare(probing, options, longest))
        ended = asyncio.create_task(stopped.wait())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ready
            raise KeyboardInterrupt
        await ready
        ended.cancel()
        progress_done()
        marks = await _watch(probing, options, stopped)
        end = time.time_ns()
        await probing.stop()
        collection, begun = probing.collection, probing.begun
        progress_done()
    progress_done()
    control = options.control if end > begun + options.control * 1e9 else 0.0
    outcome = result(
        collection,
        begun,
        end,
        title=options.title,
        control_s=control,
        marks=marks,
        budget_ms=options.budget_ms,
    )
    width = shutil.get_terminal_size((120, 40)).columns
    return outcome, whole(collection, begun, end, width), stopped.is_set()


async def _prepare(probing: ProbeRun, options: Options, longest: float) -> None:
    found = await probing.deploy()
    unknown = set(options.origins) - set(found.targets)
    if unknown:
        raise ProbeFailed(
            f"no target on {', '.join(sorted(unknown))}; there is one on {', '.join(found.targets)}"
        )
    origins = options.origins or tuple(found.targets)[:1]
    await probing.start(Wanted(origins=origins, seconds=longest, slower=options.slower, kinds=options.kinds))


async def _watch(probing: ProbeRun, options: Options, stopped: asyncio.Event) -> list[Mark]:
    """Draw until it is over: the command's end, the time's, or Ctrl-C."""
    process: asyncio.subprocess.Process | None = None
    marks: list[Mark] = []

    def elapsed() -> float:
        return (time.time_ns() - probing.begun) / 1e9

    end = options.control + options.seconds if options.seconds and not options.command else float("inf")
    with Screen(terminal=sys.stderr.isatty()) as screen:
        while elapsed() < end and not stopped.is_set():
            if options.command and elapsed() >= options.control and process is None:
                process = await _begin(options.command)
                marks.append(Mark(at_ms=elapsed() * 1000, what=f"begun: {options.command[-1]}"))
            if process and process.returncode is not None and end == float("inf"):
                what = f"ended with {process.returncode}: {options.command[-1]}"
                marks.append(Mark(at_ms=elapsed() * 1000, what=what))
                end = elapsed() + _TAIL
            screen.show(probing.collection, probing.begun, _head(elapsed(), end, options))
            if gone := probing.lost_probers:
                marks.append(Mark(at_ms=elapsed() * 1000, what=f"{_GONE}: {', '.join(gone)}"))
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stopped.wait()
    if process and process.returncode is None:
        process.terminate()
        await process.wait()
    return marks


async def _begin(words: Sequence[str]) -> asyncio.subprocess.Process:
    """The command's output goes to stderr: stdout is the result's."""
    return await asyncio.create_subprocess_exec(*words, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())


def _head(elapsed: float, end: float, options: Options) -> str:
    total = "" if end == float("inf") else f" of {end:.0f}"
    phase = "control window: leave everything alone" if elapsed < options.control else options.title
    return f"{elapsed:.0f}{total} s  {phase}"


def report(outcome: Result, strips: list[str], html: Path | None, json_file: Path | None) -> None:
    """Files as asked for; the verdict to stdout unless that is taken by the JSON."""
    if html:
        from towpath.probe.page import page

        _write(html, page(outcome).encode())
    data = msgspec.json.encode(outcome)
    if json_file and str(json_file) != "-":
        _write(json_file, data + b"\n")
    if json_file and str(json_file) == "-":
        click.echo(data)
        return
    click.echo("\n".join([*strips, "", verdict(outcome)]))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as refused:
        raise CliError(f"probe: {path}: {refused.strerror}", PRECONDITION) from refused


def verdict(outcome: Result) -> str:
    """In words, one line a reason."""
    seen = outcome.total
    line = f"{outcome.judgement.level}: {seen.lost} of {seen.sent} lost, longest gap {seen.gap_ms:.0f} ms, "
    line += f"{seen.failed_connects} failed connects, {seen.fail_open_ms:.0f} ms fail-open"
    added = outcome.judgement.added_ms
    if added is not None:
        line += f", p99.9 +{added:.1f} ms"
    elif outcome.control is None:
        line += ", latency not judged (no control window)"
    reasons = [f"  {reason}" for reason in outcome.judgement.why]
    reasons += [f"  {m.what}; the run ended there" for m in outcome.marks if m.what.startswith(_GONE)]
    left = [f"  left out: {o.path} IPv{o.family} {o.kind}: {o.why}" for o in outcome.left_out]
    return "\n".join([line, *reasons, *left])


@command.command()
@cluster_options
@click.option("--all", "everything", is_flag=True, help="Those whose time is not over yet as well.")
def clean(kubeconfig: str, context: str, everything: bool) -> None:
    """Remove what probe runs that were killed left behind."""

    async def work(client: Client) -> list[tuple[str, bool]]:
        found = await cluster.leftovers(client, datetime.datetime.now(datetime.UTC))
        chosen = [name for name, over in found.items() if over or everything]
        return [(name, await cluster.remove(client, name)) for name in chosen]

    removed = ClusterOptions(kubeconfig, context).run(work)
    for name, gone in removed:
        click.echo(f"{name}: {'removed' if gone else 'still being deleted'}")
    if not removed:
        click.echo("nothing to remove")
