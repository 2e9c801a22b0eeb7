"""``towpath completion SHELL``."""

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a completion script: `source <(towpath completion bash)`."""
    completion = SHELLS[shell](ctx.find_root().command, {}, "towpath", "_TOWPATH_COMPLETE")
    click.echo(completion.source())
