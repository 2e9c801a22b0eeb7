"""``towpath policy check``: what is wrong with policies, or probably not meant."""

from typing import Any

import click
import msgspec

from towpath.cli.exit import FINDING
from towpath.cli.output import emit, formats_option, mark
from towpath.cli.policy_input import Asked, Input, input_options
from towpath.model.finding import Finding
from towpath.policy.lint import lint

_STATES = {"info": "ok", "warning": "warning", "error": "error"}


def as_data(asked: Asked, findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """A finding a row, with where the field it is about stands."""
    rows = []
    for finding in findings:
        path = finding.message.partition(": ")[0]
        where = asked.where(finding.object, path if " " not in path else "")
        rows.append({**msgspec.to_builtins(finding), "where": where})
    return rows


def screen(rows: list[dict[str, Any]], policies: int) -> str:
    """A paragraph a finding, and how many there are."""
    lines = []
    for row in rows:
        where = f" ({row['where']})" if row["where"] else ""
        lines += [
            f"{mark(row['severity'], _STATES[row['severity']])} {row['code']} {row['object']}{where}",
            f"    {row['message']}",
            f"    fix: {row['fix']}",
        ]
    counts = [(severity, sum(row["severity"] == severity for row in rows)) for severity in reversed(_STATES)]
    summary = ", ".join(_counted(count, severity) for severity, count in counts if count)
    total = _counted(policies, "policy", "policies")
    return "\n".join([*lines, f"{total}: {summary or 'nothing found'}"])


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


@click.command()
@input_options
@formats_option("table", "json", "yaml")
@click.pass_context
def check(ctx: click.Context, given: Input, output: str) -> None:
    """What of policies cannot be understood (and so fails closed), selects nothing, comes too late to decide,
    or means everybody where nobody may be meant.

    `towpath explain TP5133` says more of a code. Exit code 3 when there is an error or a warning.
    """
    asked = given.asked(given.objects())
    world = asked.assembled.world
    if not asked.has_pods:
        click.echo("towpath: no pods are given: selectors and port names are not tried", err=True)
    findings = lint(asked.assembled)
    rows = as_data(asked, findings)
    emit(rows, output, lambda: screen(rows, len(world.policies)))
    if any(finding.severity in ("error", "warning") for finding in findings):
        ctx.exit(FINDING)
