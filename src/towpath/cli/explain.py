"""``towpath explain [TPnnnn]``."""

import click

from towpath.cli.exit import USAGE, CliError
from towpath.cli.output import table
from towpath.model.codes import CODES


@click.command()
@click.argument("code", required=False)
def command(code: str | None) -> None:
    """What a finding's CODE means, why it comes about and what to do. Without a code: all of them."""
    if code is None:
        click.echo(table(["CODE", "MEANING"], [[key, entry.title] for key, entry in sorted(CODES.items())]))
        return
    entry = CODES.get(code.upper())
    if entry is None:
        raise CliError(f"there is no code {code!r}; `towpath explain` lists all", USAGE)
    click.echo(f"{code.upper()}  {entry.title}\n\nWhy   {entry.cause}\n\nFix   {entry.fix}")
