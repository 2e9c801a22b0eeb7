"""``towpath releases [show|diff]``: RKE2's releases, and what lies between two of them."""

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from towpath.catalogue import load
from towpath.catalogue.compare import ChartChange, Comparison, compare
from towpath.catalogue.model import COMPONENTS, Catalogue, CatalogueError, Release
from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import emit, mark, output_option, table

SHOWN = ("calico", "flannel", "multus", "cni-plugins", "containerd")


def catalogue_option(command: Any) -> Any:
    """``--catalogue FILE``."""
    return click.option(
        "--catalogue",
        type=click.Path(path_type=Path),
        default=None,
        help="A newer catalogue, as scripts/make-catalogue writes it (default: the built-in one).",
    )(command)


def catalogue_of(path: Path | None) -> Catalogue:
    """The built-in one, or that of a file; errors become one sentence."""
    try:
        return load.from_file(path) if path else load.builtin()
    except CatalogueError as e:
        raise CliError(str(e), USAGE) from e


def release_of(catalogue: Catalogue, name: str) -> Release:
    """One that is known; errors become one sentence."""
    try:
        return catalogue.release(name)
    except CatalogueError as e:
        raise CliError(f"TP7001 {e}", USAGE) from e


@click.group(invoke_without_command=True)
@catalogue_option
@output_option
@click.option("--minor", default="", help="Only this Kubernetes minor, such as 1.32.")
@click.pass_context
def command(ctx: click.Context, catalogue: Path | None, output: str, minor: str) -> None:
    """RKE2's releases and what they bring for the network. Without a verb: all of them, the newest last."""
    if ctx.invoked_subcommand is not None:
        return
    found = [
        one
        for one in catalogue_of(catalogue).ordered
        if not minor or one.release.startswith(f"v{minor.removeprefix('v')}.")
    ]
    if not found:
        raise CliError(f"the catalogue has no release of {minor}", USAGE)
    rows = [[one.release, one.date, *(one.components.get(name, "-") for name in SHOWN)] for one in found]
    heads = ["RELEASE", "DATE", *(name.upper() for name in SHOWN)]
    emit([msgspec.to_builtins(one) for one in found], output, lambda: table(heads, rows))


@command.command()
@click.argument("release")
@catalogue_option
@output_option
def show(release: str, catalogue: Path | None, output: str) -> None:
    """What RELEASE consists of: components, charts, images."""
    found = release_of(catalogue_of(catalogue), release)

    def screen() -> str:
        rows = [
            ["component", name, found.components[name]] for name in COMPONENTS if name in found.components
        ]
        rows += [["chart", name, version] for name, version in found.charts.items()]
        rows += [["image", name, tag] for name, tag in found.images.items()]
        lines = [f"{found.release} of {found.date}", "", table(["KIND", "NAME", "VERSION"], rows)]
        return "\n".join([*lines, *(f"! {name}: {said}" for name, said in found.disputed.items())])

    emit(msgspec.to_builtins(found), output, screen)


@command.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@catalogue_option
@output_option
@click.pass_context
def diff(ctx: click.Context, source: str, target: str, catalogue: Path | None, output: str) -> None:
    """What an upgrade FROM one release TO another changes for the network, and what is known to go wrong.

    Exit code 3 when an error is among the findings.
    """
    known = catalogue_of(catalogue)
    found = compare(known, release_of(known, source), release_of(known, target))
    emit(as_data(found), output, lambda: screen_of(found))
    if any(finding.severity == "error" for finding in found.findings):
        ctx.exit(FINDING)


def as_data(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "from": found.source.release,
        "to": found.target.release,
        "components": {name: change._asdict() for name, change in found.components.items()},
        "images": {name: change._asdict() for name, change in found.images.items()},
        "charts": [
            {
                "name": chart.name,
                **chart.version._asdict(),
                "crdsRemoved": chart.removed,
                "crdsAdded": chart.added,
                "defaults": {
                    key: {"before": before, "after": after} for key, (before, after) in chart.defaults.items()
                },
            }
            for chart in found.charts
        ],
        "findings": [msgspec.to_builtins(finding) for finding in found.findings],
    }


def screen_of(found: Comparison) -> str:
    """The comparison for a person."""
    lines = [
        f"{found.source.release} ({found.source.date}) → {found.target.release} ({found.target.date})",
        "",
    ]
    rows = [[name, c.before or "-", c.after or "-"] for name, c in found.components.items()]
    rows += [[c.name, c.version.before or "-", c.version.after or "-"] for c in found.charts if _differs(c)]
    rows += [[name, c.before or "-", c.after or "-"] for name, c in found.images.items()]
    lines.append(table(["", "BEFORE", "AFTER"], rows) if rows else "nothing changes for the network")
    for chart in found.charts:
        if chart.added:
            lines += ["", f"{chart.name} adds {', '.join(chart.added)}"]
    rows = [
        [chart.name, key, shown(before), shown(after)]
        for chart in found.charts
        for key, (before, after) in chart.defaults.items()
    ]
    if rows:
        lines += ["", table(["CHART", "DEFAULT", "BEFORE", "AFTER"], rows)]
    if found.findings:
        lines.append("")
    for finding in found.findings:
        sign = {"error": "✗", "warning": "!", "info": "·"}[finding.severity]
        state = {"error": "error", "warning": "warning", "info": "ok"}[finding.severity]
        lines.append(f"{mark(sign, state)} {finding.code} {finding.object}: {finding.message}")
        lines.append(f"    {finding.fix}")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A chart's value in one line; absent is a dash."""
    return "-" if value is None else json.dumps(value, separators=(",", ":"))


def _differs(chart: ChartChange) -> bool:
    return chart.version.before != chart.version.after
