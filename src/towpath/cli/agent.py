"""``towpath agent``: the node daemon in the foreground."""

from collections.abc import Callable
from typing import Any

import click

from towpath.agent.config import DEFAULT_FILE, ENV_PREFIX, SETTINGS
from towpath.agent.main import AgentFailed, run
from towpath.cli.exit import PRECONDITION, USAGE, CliError


def _settings_as_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for setting in reversed(SETTINGS):
        shown = f"{setting.help}  [${setting.env}]"
        command = click.option(setting.option, setting.name, metavar="VALUE", help=shown)(command)
    return command


@click.command()
@click.option(
    "--config",
    metavar="FILE",
    help=f"Settings as YAML, keys with underscores (default: {DEFAULT_FILE} if there)  [${ENV_PREFIX}CONFIG]",
)
@_settings_as_options
def command(**given: str | None) -> None:
    """Run this node's agent until SIGTERM. Nothing it made in the kernel is removed when it stops.

    A flag wins over the environment, and that over the file.
    """
    try:
        run({name: value for name, value in given.items() if value is not None})
    except AgentFailed as e:
        raise CliError(f"agent: {e}", USAGE if e.usage else PRECONDITION) from e
