"""``towpath upgrade watch``."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from towpath.catalogue import load as catalogues
from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.nodes import NodeOptions, reading_for
from towpath.cli.output import mark, progress_done
from towpath.cli.probe import Options as ProbeOptions
from towpath.cli.probe import measure
from towpath.kube.client import Client
from towpath.kube.errors import Malformed, Unreachable
from towpath.model.finding import Finding
from towpath.probe.cluster import ProbeFailed
from towpath.probe.plan import Kind
from towpath.probe.result import Result
from towpath.probe.source import Outside
from towpath.upgrade import looking
from towpath.upgrade.watch_job import LARGEST, Watch, manifests
from towpath.upgrade.watching import Sample, Traffic, findings

T = TypeVar("T")
_COUNTED = 5.0  # seconds for which a node's rules and counters are looked at
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """``48h``, ``30m``, ``10s``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value))
        if not match:
            self.fail(f"{value!r} is no time: 48h, 30m, 10s", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@click.command()
@click.option("--for", "length", type=Duration(), default="48h", show_default=True, help="How long.")
@click.option("--every", type=Duration(), default="10m", show_default=True, help="Between two looks.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="How it was before the upgrade (--save); default: how it is at the first look.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take one look, keep it in this file, end.",
)
@click.option("--probe-seconds", default=10.0, show_default=True, help="Of probes at each look; 0: none.")
@click.option("--image", default="", help="With towpath in it, for probes, nodes and --job.")
@click.option(
    "--read-nodes/--no-read-nodes",
    default=None,
    help="Look at the nodes themselves as well: rules, retransmits, drops, throughput.",
)
@click.option("--job", is_flag=True, help="Print a Job that does this in the cluster.")
@cluster_options
@click.pass_context
def watch(ctx: click.Context, /, kubeconfig: str, context: str, job: bool, **given: Any) -> None:
    """Look again and again at an upgraded network: traffic, logs, restarts, memory, and what has vanished.

    Each look is compared with how it was before. Findings are told as they come, each once; exit code 3 at
    the end if there was one. Ctrl-C ends it with what was found.
    """
    if job:
        click.echo(manifests(_job(given)), nl=False)
        return
    before = _baseline(given["baseline"])
    options = ClusterOptions(kubeconfig, context)
    outside = None
    if lab := lab_of(kubeconfig, context) if given["probe_seconds"] else None:
        from towpath.lab.outside import OutsideHost

        outside = OutsideHost(lab)
    nodes = NodeOptions(given["read_nodes"], given["image"], _COUNTED)
    watcher = Watcher(given["image"], given["probe_seconds"], outside, (options, nodes))
    if given["save"]:
        sample = options.run(lambda client: watcher.look(client, time.time()))
        _keep(given["save"], sample)
        return
    try:
        options.run(lambda client: watcher.run(client, before, given["length"], given["every"]))
    except KeyboardInterrupt:
        click.echo("ended by hand", err=True)
    count = len(watcher.told)
    state = "error" if count else "ok"
    click.echo(mark(f"{watcher.looks} looks: {f'{count} findings' if count else 'nothing is worse'}", state))
    if watcher.told:
        ctx.exit(FINDING)


def _job(given: dict[str, Any]) -> Watch:
    """What the Job is to do. Raises CliError."""
    if not given["image"]:
        raise CliError("--job needs --image: an image with towpath in it", USAGE)
    if given["save"]:
        raise CliError("--job watches; a baseline is kept by --save without it", USAGE)
    file = given["baseline"]
    kept = msgspec.json.encode(_baseline(file)) if file else b""
    if len(kept) > LARGEST:
        told = (
            f"{file} has {len(kept)} bytes, and a ConfigMap at most {LARGEST}: --save it with --no-read-nodes"
        )
        raise CliError(told, USAGE)
    return Watch(
        image=given["image"],
        length=given["length"],
        every=given["every"],
        probe_seconds=given["probe_seconds"],
        read_nodes=given["read_nodes"] is not False,
        baseline=kept.decode(),
    )


class Watcher:
    """Looks, compares, and tells what is new."""

    def __init__(
        self,
        image: str,
        probe_seconds: float,
        outside: Outside | None,
        nodes: tuple[ClusterOptions, NodeOptions],
    ) -> None:
        self._image, self._seconds, self._outside, self._nodes = image, probe_seconds, outside, nodes
        self._patterns = catalogues.builtin().known.log
        self.told: dict[tuple[str, str], Finding] = {}
        self.looks = 0
        self._left_out: set[str] = set()
        self._ended = asyncio.Event()

    async def run(self, client: Client, before: Sample | None, length: float, every: float) -> None:
        """Until ``length`` seconds are over. A server that does not answer is asked again later.

        Raises KeyboardInterrupt on SIGINT, and on SIGTERM: a deleted Job leaves no probes behind.
        """
        end, since = time.monotonic() + length, time.time()
        while True:
            begun = time.monotonic()
            try:
                now = await self._unless_ended(self.look(client, since))
            except (Unreachable, Malformed, ProbeFailed) as away:
                click.echo(f"{_clock()} no look: {away}", err=True)
            else:
                since, before = now.at, before or now
                self.looks += 1
                self._tell(findings(before, now))
                click.echo(f"{_clock()} {_words(now)}", err=True)
                for why in set(now.left_out) - self._left_out:
                    click.echo(f"{_clock()} left out: {why}", err=True)
                self._left_out |= set(now.left_out)
            if time.monotonic() >= end:
                return
            pause = max(0.0, min(end, begun + every) - time.monotonic())
            await self._unless_ended(asyncio.sleep(pause))

    async def _unless_ended(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. A signal cancels it, and what it put into the cluster goes."""
        for number in (signal.SIGINT, signal.SIGTERM):  # a run of probes takes them for itself
            asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
        task, ended = asyncio.create_task(work), asyncio.create_task(self._ended.wait())
        await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            raise KeyboardInterrupt
        return task.result()

    def _tell(self, found: list[Finding]) -> None:
        for one in found:
            if (one.code, one.object) not in self.told:
                self.told[one.code, one.object] = one
                click.echo(f"{_clock()} {mark('✗', 'error')} {one}")
                sys.stdout.flush()

    async def look(self, client: Client, since: float) -> Sample:
        """One look, with probes if they are wanted. Raises KubeError, ProbeFailed."""
        sample = await self._with_nodes(client, await looking.look(client, self._patterns, since))
        if not self._seconds:
            return sample
        options = ProbeOptions(
            image=self._image,
            seconds=self._seconds,
            control=0.0,
            origins=(),
            slower=4.0,
            kinds=tuple(Kind),
            budget_ms=1000.0,
            title="watch",
            command=(),
        )
        result, _, interrupted = await measure(client, options, self._outside)
        progress_done()
        if interrupted:
            raise KeyboardInterrupt
        return msgspec.structs.replace(sample, traffic=traffic_of(result))

    async def _with_nodes(self, client: Client, sample: Sample) -> Sample:
        """What is wrong on them, and what they counted; why not, where they cannot be looked at."""
        options, wanted = self._nodes
        if wanted.wanted is False:
            return sample
        try:
            reading = await reading_for(client, options, wanted)
        except CliError as nothing:
            if wanted.wanted:
                raise
            return msgspec.structs.replace(sample, left_out=(*sample.left_out, str(nothing)))
        seen, why = await looking.look_at_nodes(client, reading)
        return msgspec.structs.replace(sample, nodes=seen, left_out=(*sample.left_out, *why))


def traffic_of(result: Result) -> Traffic:
    """What a run of probes lost, in short."""
    seen = result.total
    hurt = tuple(f"{p.path} IPv{p.family}" for p in result.paths if p.total.lost or p.total.opened)
    return Traffic(
        level=result.judgement.level.value,
        sent=seen.sent,
        lost=seen.lost,
        gap_ms=seen.gap_ms,
        opened=seen.opened,
        p999_ms=seen.p999_ms,
        where=hurt,
    )


def _words(now: Sample) -> str:
    ready = sum(pod.ready for pod in now.pods)
    probes = f", {now.traffic.lost} of {now.traffic.sent} lost" if now.traffic else ""
    return f"{ready}/{len(now.pods)} pods of the network ready{probes}"


def _clock() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _baseline(file: Path | None) -> Sample | None:
    if file is None:
        return None
    try:
        return looking.load(file.read_bytes())
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    except msgspec.DecodeError as e:
        raise CliError(f"{file} is no baseline (towpath upgrade watch --save): {e}", USAGE) from e


def _keep(file: Path, sample: Sample) -> None:
    try:
        file.write_bytes(msgspec.json.encode(sample))
    except OSError as e:
        raise CliError(f"{file} cannot be written: {e.strerror}") from e
    for why in sample.left_out:
        click.echo(f"left out: {why}", err=True)
    click.echo(f"{_words(sample)}: kept in {file}")
