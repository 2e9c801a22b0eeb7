"""``towpath preflight --to RELEASE``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import msgspec

from towpath.catalogue.compare import compare
from towpath.catalogue.model import Catalogue, CatalogueError, Release
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, INCONCLUSIVE, USAGE, CliError
from towpath.cli.nodes import NodeOptions, node_options, read
from towpath.cli.output import emit, formats_option, mark, progress, progress_done
from towpath.cli.policy_engines import between
from towpath.cli.releases import catalogue_of, catalogue_option, release_of
from towpath.cli.several import contexts_option
from towpath.inventory.cluster import Inventory
from towpath.kube.client import Client
from towpath.preflight.checks import PREFLIGHT
from towpath.preflight.engines import Verdicts
from towpath.preflight.situation import Answer, Situation, run
from towpath.upgrade.survey import survey

_SIGNS = {
    "ok": ("✓", "ok"),
    "findings": ("✗", "error"),
    "untold": ("?", "warning"),
    "skipped": ("-", "warning"),
}


@click.command()
@contexts_option
@click.option("--to", "target", required=True, metavar="RELEASE", help="The RKE2 release to upgrade to.")
@click.option(
    "--from", "source", default="", metavar="RELEASE", help="What runs (default: what the nodes say)."
)
@click.option(
    "-f",
    "--inventory",
    "file",
    type=click.Path(path_type=Path),
    help="An inventory instead of the live cluster.",
)
@click.option("--skip", type=int, multiple=True, metavar="N", help="Leave out check N; may be repeated.")
@catalogue_option
@node_options(default=None)
@cluster_options
@formats_option("table", "json", "yaml", "junit")
@click.pass_context
def command(
    ctx: click.Context,
    target: str,
    source: str,
    file: Path | None,
    skip: tuple[int, ...],
    catalogue: Path | None,
    nodes: NodeOptions,
    kubeconfig: str,
    context: str,
    output: str,
) -> None:
    """Whether an upgrade of the pod network can begin: every check with its evidence and what to do.

    Nothing is changed; a short-lived pod on every node reads what the API does not know. Exit code 3 when a
    check finds an error, 6 when one cannot tell.
    """
    known = catalogue_of(catalogue)
    to = release_of(known, target)
    if strange := sorted(set(skip) - {check.number for check in PREFLIGHT}):
        raise CliError(f"there is no check {strange[0]}; there are {_numbers()}", USAGE)
    now, verdicts = datetime.now(UTC), None
    given = release_of(known, source) if source else None
    if file is not None:
        found = _read(file)
    else:
        options = ClusterOptions(kubeconfig, context)

        async def look(client: Client) -> tuple[Inventory, Verdicts | None]:
            seen = await read(client, await survey(client, now, progress), options, nodes)
            return seen, await between(client, seen, to)

        found, verdicts = options.run(look)
        progress_done()
    begun = given or running(known, found)
    comparison = compare(known, begun, to) if begun is not None else None
    situation = Situation(found, known, begun, to, comparison, now, verdicts)
    answers = run(PREFLIGHT, situation, frozenset(skip))
    if output == "junit":
        click.echo(junit(answers))
    else:
        emit(as_data(situation, answers), output, lambda: screen(situation, answers))
    if any(one.severity == "error" for answer in answers for one in answer.findings):
        ctx.exit(FINDING)
    if any(answer.state == "untold" for answer in answers):
        ctx.exit(INCONCLUSIVE)


def running(known: Catalogue, found: Inventory) -> Release | None:
    """The oldest release that a node is of, if the catalogue has it: the way begins there."""
    releases = []
    for name in found.node_releases:
        try:
            releases.append(known.release(name))
        except CatalogueError:
            return None
    return min(releases, key=known.ordered.index, default=None)


def _numbers() -> str:
    return ", ".join(str(check.number) for check in PREFLIGHT)


def _read(file: Path) -> Inventory:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Inventory)
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    except msgspec.DecodeError as e:
        raise CliError(f"{file} is no inventory (towpath inventory -o json): {e}", USAGE) from e


def screen(at: Situation, answers: list[Answer]) -> str:
    """For a person: every check a line, its findings below it."""
    begun = at.source.release if at.source else ", ".join(sorted(at.inventory.node_releases))
    lines = [f"{begun} → {at.target.release}, {len(at.inventory.nodes)} nodes", ""]
    for answer in answers:
        sign, state = _SIGNS[answer.state]
        if answer.findings and all(one.severity != "error" for one in answer.findings):
            sign, state = "!", "warning"
        why = f" ({answer.state}: {answer.why})" if answer.why else ""
        lines.append(f"{mark(sign, state)} {answer.check.number:2} {answer.check.title}{why}")
        for one in answer.findings:
            lines += [f"      {one.code} {one.object}: {one.message}", f"        {one.fix}"]
    errors = sum(one.severity == "error" for answer in answers for one in answer.findings)
    untold = sum(answer.state == "untold" for answer in answers)
    skipped = sum(answer.state == "skipped" for answer in answers)
    lines += ["", f"{len(answers)} checks: {errors} errors, {untold} cannot be told, {skipped} skipped"]
    lines += [f"left out: {why}" for why in at.inventory.left_out]
    return "\n".join(lines)


def as_data(at: Situation, answers: list[Answer]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "from": at.source.release if at.source else None,
        "to": at.target.release,
        "checks": [
            {
                "number": answer.check.number,
                "title": answer.check.title,
                "state": answer.state,
                "why": answer.why,
                "findings": [msgspec.to_builtins(one) for one in answer.findings],
            }
            for answer in answers
        ],
    }


def junit(answers: list[Answer]) -> str:
    """For CI systems: a test case a check."""
    suite = ElementTree.Element("testsuite", name="towpath preflight", tests=str(len(answers)))
    for answer in answers:
        case = ElementTree.SubElement(suite, "testcase", name=f"{answer.check.number} {answer.check.title}")
        told = "\n".join(map(str, answer.findings))
        if any(one.severity == "error" for one in answer.findings):
            ElementTree.SubElement(case, "failure", message=answer.findings[0].message).text = told
        elif answer.state in ("untold", "skipped"):
            ElementTree.SubElement(case, "skipped", message=f"{answer.state}: {answer.why}")
        elif told:
            ElementTree.SubElement(case, "system-out").text = told
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode")
