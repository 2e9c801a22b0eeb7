"""``towpath policy …``: what policies allow and why, what is wrong with them, or what they did."""

import click

from towpath.cli.policy_check import check
from towpath.cli.policy_diff import diff
from towpath.cli.policy_explain import explain
from towpath.cli.policy_log import log
from towpath.cli.policy_matrix import matrix


@click.group()
def command() -> None:
    """What policies allow and why, what is wrong with them, and what a change of them would change.

    About the live cluster; with -f about files; with -f and --live about the cluster with the files applied.
    """


for verb in (explain, check, diff, matrix, log):
    command.add_command(verb)
