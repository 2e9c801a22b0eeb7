"""``towpath ipam release``: free an address that nobody uses."""

from typing import Any

import click

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, CliError
from towpath.cli.ipam_ask import Address, ask, with_agent
from towpath.cli.output import emit, output_option
from towpath.kube.client import Client
from towpath.kube.kinds import NODES
from towpath.model.net import Addr


@click.command()
@click.argument("addresses", nargs=-1, required=True, type=Address())
@click.option(
    "--force", is_flag=True, help="Although the API server has the pod; never while the node has its link."
)
@cluster_options
@output_option
@click.pass_context
def release(
    ctx: click.Context,
    addresses: tuple[Addr, ...],
    force: bool,
    kubeconfig: str,
    context: str,
    output: str,
) -> None:
    """Free ADDRESSES whose release was missed, without waiting for the grace period.

    Both proofs are asked for: the node's (the pod's link is gone, the node was booted since, or the runtime
    does not list the container) and the API server's (the pod is gone). Exit code 3: one was not freed.
    """

    async def work(client: Client) -> list[dict[str, Any]]:
        names = with_agent((await client.list(NODES)).items)
        seen = await ask(client, names, "show", addresses=addresses)
        rows = []
        for address in addresses:
            holders = [n for n, a in seen.items() if any(one.address == str(address) for one in a.leases)]
            silent = {n: a.error for n, a in seen.items() if a.error}
            if not holders and silent:
                node, why = next(iter(silent.items()))
                raise CliError(f"{address}: no node that answered has leased it, and Node/{node}: {why}")
            rows += [await _release(client, node, address, force) for node in holders]
            if not holders:
                rows.append({"address": str(address), "node": "", "freed": False, "message": "is not leased"})
        return rows

    rows = ClusterOptions(kubeconfig, context).run(work)
    emit(rows, output, lambda: "\n".join(_line(row) for row in rows))
    if not all(row["freed"] for row in rows):
        ctx.exit(FINDING)


async def _release(client: Client, node: str, address: Addr, force: bool) -> dict[str, Any]:
    answer = (await ask(client, [node], "release", addresses=[address], force=force))[node]
    told = answer.error or "; ".join((*answer.done, *answer.refused))
    return {"address": str(address), "node": node, "freed": bool(answer.done), "message": told}


def _line(row: dict[str, Any]) -> str:
    where = f"Node/{row['node']}: " if row["node"] else ""
    message: str = row["message"]
    return where + (message if message.startswith(row["address"]) else f"{row['address']} {message}")
