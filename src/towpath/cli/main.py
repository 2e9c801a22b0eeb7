"""Entry point: finds the verb's module when the verb is typed, so that start-up costs only what is used."""

import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from towpath import __version__
from towpath.cli.exit import EXIT_CODES_HELP, INTERNAL, INTERRUPTED, CliError

# verb -> one line for the overview; the module is towpath.cli.<verb> and holds ``command``
VERBS = {
    "status": "one screen: nodes, agents, addresses, findings",
    "verify": "kernel against desired state on every node; who reaches whom",
    "releases": "RKE2's releases, and what an upgrade between two changes for the network",
    "inventory": "what the cluster's pod network consists of, on screen or as a file",
    "preflight": "whether an upgrade of the pod network can begin",
    "upgrade": "a new version of the pod network, node by node, with gates and a way back",
    "backup": "save what the pod network was told: policies, networks, charts, settings",
    "restore": "bring back what a backup holds, all or parts of it",
    "sysdump": "one archive for a bug report: inventory, objects, logs and Events, secrets removed",
    "probe": "what the pod network loses while something is done to it, on any cluster",
    "policy": "what policies allow and why, what is wrong with them, what a change would change",
    "explain": "what a finding's code means and what to do",
    "ipam": "addresses: how many are used and by whom, what is leaked or used twice",
    "net": "networks beside the pod network, and what pods have of them",
    "node": "take this node over from Canal, in place and with its pods running, or hand it back",
    "image": "judge a container image by its files, and compare two",
    "install": "Towpath's manifests: print them, compare a cluster with them",
    "lab": "a cluster on this machine, from namespaces",
    "agent": "the node daemon (started by the DaemonSet, not by hand)",
    "completion": "shell completion script",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order an operator meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``towpath.cli.<verb>``."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"towpath.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview without importing every verb."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown verb names the nearest known one."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no verb {args[0]!r}{hint} (see {ctx.command_path} --help)", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, epilog=EXIT_CODES_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="towpath %(version)s")
def cli() -> None:
    """Towpath: a Kubernetes pod network that can be upgraded without fear."""


def program_name(argv0: str) -> str:
    """``kubectl-towpath`` on the PATH is kubectl's plugin: usage texts then show what the user typed."""
    return "kubectl towpath" if Path(argv0).name.startswith("kubectl-") else "towpath"


def main() -> NoReturn:
    """Run, and translate every ending into an exit code (design §7)."""
    try:
        code = cli.main(prog_name=program_name(sys.argv[0]), standalone_mode=False)
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.ClickException as wrong:
        wrong.show()
        code = wrong.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except CliError as known:
        click.echo(f"towpath: {known}", err=True)
        code = known.exit_code
    except Exception as unknown:
        if os.environ.get("TOWPATH_DEBUG"):
            raise
        click.echo(
            f"towpath: internal error: {type(unknown).__name__}: {unknown} (TOWPATH_DEBUG=1 shows where)",
            err=True,
        )
        code = INTERNAL
    sys.exit(code if isinstance(code, int) else 0)
