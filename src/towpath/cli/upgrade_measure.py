"""What an upgrade measures beside readiness: the plan's part, the probes that run, the gates they are."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial, wraps
from typing import Any, NamedTuple

import click

from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions
from towpath.cli.exit import USAGE, CliError
from towpath.cli.nodes import NodeOptions, reading_for
from towpath.cli.output import mark
from towpath.inventory.components import Component
from towpath.kube.client import Client
from towpath.lab.outside import OutsideHost
from towpath.probe.cluster import ProbeFailed
from towpath.upgrade.gates import Verdict
from towpath.upgrade.gates_node import read_node
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Measure, Plan
from towpath.upgrade.probing import RollProbes

_OURS = "towpath-agent"
_CHURN = 10.0  # seconds a node's rules are looked at after its turn
Gate = tuple[str, Callable[[], Awaitable[Verdict]]]


class Wanted(NamedTuple):
    """What was typed."""

    probes: bool
    level: str
    budget: float
    slower: float


def measure_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--probes``, ``--level``, ``--budget``, ``--slower``: given as ``measures: Wanted``."""

    @wraps(command)
    def run(*args: Any, probes: bool, level: str, budget: float, slower: float, **given: Any) -> Any:
        if slower < 1 or budget < 0:
            raise CliError("--slower is at least 1, --budget not negative", USAGE)
        return command(*args, measures=Wanted(probes, level, budget, slower), **given)

    for option in (
        click.option("--slower", default=5.0, show_default=True, help="Stretch the probes' intervals."),
        click.option("--budget", default=1000.0, show_default=True, help="Longest gap in ms that H2 allows."),
        click.option(
            "--level",
            type=click.Choice(["H0", "H1", "H2"]),
            default=None,
            help="What a node's turn may cost (default: H0 for Towpath, H1 for others).",
        ),
        click.option(
            "--probes/--no-probes",
            default=True,
            help="Probe all paths during the roll, as a gate of each node.",
        ),
    ):
        run = option(run)
    return run


async def planned(
    client: Client, options: ClusterOptions, nodes: NodeOptions, part: Component, wanted: Wanted
) -> tuple[Measure | None, str]:
    """The plan's part, and why it is not all there could be."""
    ours = any(image.name == _OURS for image in part.wanted.values())
    read = nodes.wanted is not False and not (ours and nodes.wanted is None)
    without = [
        word for word, there in (("--no-probes", wanted.probes), ("--no-read-nodes", read)) if not there
    ]
    if not wanted.probes and not read:
        return None, ", ".join(without)
    try:
        reading = await reading_for(client, options, nodes)
    except CliError as nothing:
        if nodes.wanted:
            raise
        return None, str(nothing)
    measure = Measure(
        image=reading.image,
        python=reading.python,
        read=read,
        churn=min(reading.churn, _CHURN),
        probes=wanted.probes,
        level=wanted.level or ("H0" if ours else "H1"),
        budget_ms=wanted.budget,
        slower=wanted.slower,
    )
    return measure, ", ".join(without)


async def start_probes(
    client: Client,
    options: ClusterOptions,
    logbook: Logbook,
    stack: AsyncExitStack,
    say: Callable[[str], None],
) -> RollProbes | None:
    """If the plan under way wants them. They end with ``stack``. Raises CliError when they cannot run."""
    known = await logbook.read()
    measure = known[0].measure if known else None
    if known is None or measure is None or not measure.probes or known[1].mode != "forward":
        return None
    lab = lab_of(options.kubeconfig, options.context)
    say("probes are put into place")
    try:
        outside = OutsideHost(lab) if lab else None
        return await stack.enter_async_context(RollProbes(client, measure, outside, lambda _: None))
    except ProbeFailed as failed:
        raise CliError(
            f"TP7408 probes cannot run: {failed} (a plan with --no-probes does without)"
        ) from failed


def measured(
    client: Client, made: Plan, logbook: Logbook, node: str, probes: RollProbes | None
) -> tuple[Gate, ...]:
    """The gates of a node that need more than the API."""
    gates: list[Gate] = []
    if made.measure is not None and made.measure.read:
        gates.append(("the node's own state", partial(read_node, client, made, node)))
    if probes is not None:
        gates.append(("probes", partial(_probed, logbook, node, probes)))
    return tuple(gates)


async def _probed(logbook: Logbook, node: str, probes: RollProbes) -> Verdict:
    known = await logbook.read()
    touched = known[1].last(("touch",), node) if known else None
    if touched is None:
        return Verdict("pass", "its pod was not replaced")
    return await probes.gate(node, touched.at)


def measures_told(made: Plan) -> list[str]:
    """What is looked at beside the gates of the API, and what is not."""
    lines, measure = [], made.measure
    if measure is not None and measure.read:
        lines.append(f"each node is looked at after its turn, its rules for {measure.churn:.0f} s")
    if measure is not None and measure.probes:
        budget = f", at most {measure.budget_ms:.0f} ms" if measure.level == "H2" else ""
        lines.append(f"probes run all the time; a node's turn may cost {measure.level}{budget}")
    if made.unmeasured:
        lines.append(mark(f"not measured: {made.unmeasured}", "warning"))
    return lines
