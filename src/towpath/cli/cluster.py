"""Options and errors of every verb that talks to a cluster."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
import msgspec

from towpath.cli.exit import CliError
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import KubeError

T = TypeVar("T")


class ClusterOptions(msgspec.Struct, frozen=True):
    """What kubectl users expect to be able to say; empty means kubectl's own default."""

    kubeconfig: str
    context: str

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Run ``work`` with a client; API and configuration errors become one sentence and exit code 7."""

        async def main() -> T:
            async with Client(config.load(self.kubeconfig, self.context), user_agent="towpath-cli") as client:
                return await work(client)

        try:
            return asyncio.run(main())
        except KubeError as e:
            raise CliError(str(e)) from e


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--kubeconfig`` and ``--context``."""
    command = click.option("--context", default="", help="The kubeconfig context to use.")(command)
    return click.option(
        "--kubeconfig", default="", help="Path to the kubeconfig (default: as kubectl finds it)."
    )(command)
