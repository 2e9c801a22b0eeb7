"""``towpath policy diff``: who reaches whom on more or on less, by class, if policies are changed."""

from typing import Any

import click
import msgspec

from towpath.cli.exit import FINDING, INCONCLUSIVE, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, table
from towpath.cli.policy_input import LIVE, Input, Objects, input_options
from towpath.cli.policy_matrix import class_data, class_lines, class_text, is_one_endpoint, place_data
from towpath.cli.policy_pages import edge, graph, heading, html_table, node, page, paragraph
from towpath.policy.matrix import Difference
from towpath.policy.matrix import diff as difference
from towpath.policy.world import STAGED_KINDS

_SAME = "nothing changes"


def sides(given: Input, names: tuple[str, ...], staged: bool) -> tuple[Objects, Objects]:
    """What is compared. ``live`` lies below both, and so do the files of -f."""
    if len(names) != (1 if staged and names else 0 if staged else 2):
        raise CliError(
            "give two files or folders, `live` among them or not; with --staged, one or none", USAGE
        )
    if names.count("-") > 1:
        raise CliError("standard input can be read once only", USAGE)
    below = given.objects(or_live=not names)
    if LIVE in names and not given.live:
        below = given.live_objects() | below
    found = [below if name == LIVE else below | given.read([name]) for name in names or (LIVE,)]
    return found[0], found[-1]


def as_data(found: Difference) -> dict[str, Any]:
    """The changes, and the places that are on one side only."""
    return {
        "changes": [
            {
                "from": class_data(change.source),
                "to": class_data(change.destination),
                "added": str(change.added),
                "removed": str(change.removed),
            }
            for change in found.changes
        ],
        "before": [place_data(place) for place in found.before],
        "after": [place_data(place) for place in found.after],
    }


def screen(found: Difference) -> str:
    """For a person."""
    rows = [
        [
            class_text(change.source),
            class_text(change.destination),
            mark(f"+ {change.added}", "ok") if change.added else "",
            mark(f"- {change.removed}", "error") if change.removed else "",
        ]
        for change in found.changes
    ]
    parts = [table(["FROM", "TO", "NOW ALLOWED", "NOW DENIED"], rows)] if rows else []
    for words, places in (("before", found.before), ("after", found.after)):
        if places:
            members = "".join(f"\n  {place}" for place in places)
            parts.append(f"There only {words}, and not compared:{members}")
    return "\n\n".join(parts) or _SAME


def dot(found: Difference) -> str:
    """For Graphviz: what changes between classes, green what is allowed now, red what is denied now."""
    classes = dict.fromkeys(one for change in found.changes for one in (change.source, change.destination))
    names = {one: f"C{number}" for number, one in enumerate(classes, 1)}
    lines = [node(name, class_lines(one)) for one, name in names.items()]
    for change in found.changes:
        ends = names[change.source], names[change.destination]
        lines += [edge(*ends, f"+ {change.added}", "darkgreen")] if change.added else []
        lines += [edge(*ends, f"- {change.removed}", "red")] if change.removed else []
    return graph(lines)


def html(found: Difference) -> str:
    """A page of its own, with all members of all classes."""
    rows = [
        (
            "\n".join(map(str, change.source.members)),
            "\n".join(map(str, change.destination.members)),
            (f"+ {change.added}", "ok") if change.added else "",
            (f"- {change.removed}", "error") if change.removed else "",
        )
        for change in found.changes
    ]
    parts = [html_table(("From", "To", "Now allowed", "Now denied"), rows)] if rows else []
    for words, places in (("before", found.before), ("after", found.after)):
        if places:
            parts += [heading(f"There only {words}, and not compared")]
            parts += [html_table(("Place",), ((str(place),) for place in places))]
    return page("Policy difference", *(parts or [paragraph(_SAME)]))


def _telling(found: Difference) -> Difference:
    changes = tuple(one for one in found.changes if not is_one_endpoint(one.source, one.destination))
    return msgspec.structs.replace(found, changes=changes)


@click.command()
@click.argument("names", nargs=-1, metavar="[A B]")
@click.option("--staged", is_flag=True, help="Compare with Calico's staged policies in force.")
@input_options
@formats_option("table", "json", "yaml", "dot", "html")
@click.pass_context
def diff(ctx: click.Context, names: tuple[str, ...], staged: bool, given: Input, output: str) -> None:
    """Which classes reach which on more or on less in B than in A, without sending a packet.

    A and B are files or folders, `-` for standard input, or `live`; then B is what would be if its objects
    were applied. Files of -f (pods, say) count on both sides. With --staged and A, or what -f or the cluster
    has: what would change if the staged policies were in force. Exit code 3 when anything changes, 6 when
    there are no pods for which anything could. `-o dot` is for Graphviz, `-o html` a page by itself.
    """
    before, after = sides(given, names, staged)
    if staged and not any(key.kind in STAGED_KINDS for key in after):
        click.echo("towpath: no policy is staged here", err=True)
    old, new = given.asked(before), given.asked(after, staged=staged)
    found = _telling(difference(old.assembled.world, new.assembled.world))
    for finding in new.assembled.findings:
        click.echo(f"towpath: {finding}", err=True)
    any_pods = old.has_pods or new.has_pods
    if not any_pods:
        click.echo("towpath: no pods are given, so policies select nobody: add -f PODS, or --live", err=True)
    if output in ("dot", "html"):
        click.echo(dot(found) if output == "dot" else html(found))
    else:
        emit(as_data(found), output, lambda: screen(found))
    if found.changes or found.before or found.after:
        ctx.exit(FINDING)
    if not any_pods:
        ctx.exit(INCONCLUSIVE)
