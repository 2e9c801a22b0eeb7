"""``towpath ipam …``: how full the node's ranges are, what is wrong with leases, and the mending."""

import click

from towpath.cli.ipam_check import check
from towpath.cli.ipam_migrate import migrate
from towpath.cli.ipam_release import release
from towpath.cli.ipam_reserve import reserve
from towpath.cli.ipam_show import show


@click.group()
def command() -> None:
    """Addresses of pods: how many are used and by whom, what is leaked or used twice, and the mending.

    Every node's agent is asked through annotations of its Node, which takes the right to patch nodes.
    """


for verb in (show, check, release, reserve, migrate):
    command.add_command(verb)
