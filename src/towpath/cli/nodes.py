"""Options of commands that look at the nodes themselves, and the looking."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

import click
import msgspec

from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions
from towpath.cli.exit import PRECONDITION, CliError
from towpath.cli.output import progress
from towpath.inventory.cluster import Inventory, node_state
from towpath.inventory.components import node_facts
from towpath.inventory.node_report import NodeReport
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import CONFIG_MAPS, NODES
from towpath.model.finding import Finding
from towpath.preflight.kernel_checks import CANALS_MAP, as_written, of_nodes
from towpath.preflight.situation import Untold
from towpath.probe.cluster import ProbeFailed, image_for
from towpath.upgrade.node_reading import Reading, read_nodes, with_reports
from towpath.upgrade.survey import SYSTEM

F = TypeVar("F", bound=Callable[..., Any])


class NodeOptions(NamedTuple):
    """What was typed. ``wanted`` None: it was not said, and is done where it can be."""

    wanted: bool | None
    image: str
    churn: float


def node_options(*, default: bool | None, churn: float = 60.0) -> Callable[[F], F]:
    """``--read-nodes``, ``--image`` and ``--churn``, given to the command as ``nodes: NodeOptions``."""

    def decorate(command: F) -> F:
        @wraps(command)
        def run(*args: Any, read_nodes: bool | None, image: str, churn: float, **given: Any) -> Any:
            return command(*args, nodes=NodeOptions(read_nodes, image, churn), **given)

        for option in (
            click.option(
                "--churn", default=churn, show_default=True, help="Seconds to look at each node's rules."
            ),
            click.option(
                "--image", default="", help="Image with towpath in it (default: that of the cluster's agent)."
            ),
            click.option(
                "--read-nodes/--no-read-nodes",
                default=default,
                help="Send a short-lived pod to every node that reads what the API does not know.",
            ),
        ):
            run = option(run)
        return cast(F, run)

    return decorate


async def reading_for(
    client: Client, options: ClusterOptions, nodes: NodeOptions, *, keep: bool = False
) -> Reading:
    """How to look. Raises CliError where there is no image that could."""
    in_lab = lab_of(options.kubeconfig, options.context) is not None
    try:
        image, python = await image_for(client, nodes.image, in_lab=in_lab)
    except ProbeFailed as nothing:
        raise CliError(
            f"nodes cannot be read: {nothing} (or leave it out with --no-read-nodes)", PRECONDITION
        ) from nothing
    return Reading(image=image, python=python, churn=max(0.0, nodes.churn), keep=keep)


async def read(client: Client, found: Inventory, options: ClusterOptions, nodes: NodeOptions) -> Inventory:
    """The inventory with what was found on its nodes, if that is wanted; else it says why not."""
    if nodes.wanted is False:
        return _unread(found, "--no-read-nodes")
    try:
        reading = await reading_for(client, options, nodes)
    except CliError as nothing:
        if nodes.wanted:
            raise
        return _unread(found, str(nothing))
    return await with_reports(client, found, reading, progress)


async def look_at_nodes(
    client: Client, options: ClusterOptions, nodes: NodeOptions
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What is wrong on the nodes themselves, and what cannot be told."""
    raws = (await client.list(NODES.raw())).items
    reading = await reading_for(client, options, nodes)
    answers = await read_nodes(client, [raw["metadata"]["name"] for raw in raws], reading, progress)
    states = []
    for raw in raws:
        state, answer = node_state(raw, node_facts(raw), 0), answers[raw["metadata"]["name"]]
        states.append(msgspec.structs.replace(state, report=answer.report, unread=answer.why))
    wrong, untold = of_nodes(states)
    try:
        data = (await client.get(CONFIG_MAPS, CANALS_MAP, SYSTEM)).get("data") or {}
        return (*wrong, *as_written(states, data)), untold
    except NotFound:
        return wrong, untold
    except (Forbidden, Untold) as why:
        return wrong, (*untold, str(why))


async def reports_of(
    client: Client, options: ClusterOptions, nodes: NodeOptions
) -> tuple[dict[str, NodeReport], dict[str, str]]:
    """What every node holds, with all that a backup wants; and which could not be read, and why."""
    names = [node.metadata.name for node in (await client.list(NODES)).items]
    reading = await reading_for(client, options, nodes, keep=True)
    answers = await read_nodes(client, names, reading, progress)
    reports = {name: answer.report for name, answer in answers.items() if answer.report is not None}
    return reports, {name: answer.why for name, answer in answers.items() if answer.report is None}


def _unread(found: Inventory, why: str) -> Inventory:
    unread = tuple(msgspec.structs.replace(node, unread=why) for node in found.nodes)
    return msgspec.structs.replace(found, nodes=unread)
