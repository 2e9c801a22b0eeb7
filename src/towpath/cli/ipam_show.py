"""``towpath ipam show``: how full every range is, and when it will be; whose an address is."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from math import log2
from typing import Any

import click

from towpath.api.core import Node, Pod
from towpath.api.ipam_inquiry import Answer, RangeSeen
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, INCONCLUSIVE
from towpath.cli.ipam_ask import NO_AGENT, Address, ask, with_agent
from towpath.cli.output import emit, mark, output_option, table
from towpath.ipam.allocate import make_range
from towpath.ipam.blocks import read_block
from towpath.ipam.errors import BadBlock, BadRange
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import IPAM_BLOCKS, NODES, PODS
from towpath.model.net import Addr, Net

BY = ("node", "block", "pool", "namespace")
_OVER = ("Succeeded", "Failed")
_FIGURES = ("size", "used", "held", "foreign", "reserved")
Row = dict[str, Any]


@click.command()
@click.argument("addresses", nargs=-1, type=Address())
@click.option(
    "--by", type=click.Choice(BY), default="node", show_default=True, help="What to add figures up by."
)
@click.option("--leases", is_flag=True, help="Every single lease.")
@cluster_options
@output_option
@click.pass_context
def show(
    ctx: click.Context,
    addresses: tuple[Addr, ...],
    by: str,
    leases: bool,
    kubeconfig: str,
    context: str,
    output: str,
) -> None:
    """How full the ranges are and when they will be; of ADDRESSES, whose they are.

    Of a node whose agent does not answer (or that has none yet), the API's pods are counted instead. By block
    is by the node's own range, or in block mode by what each node has of each block; by pool by IPPool, or by
    the cluster's networks where there are none. Exit code 3: an address is leased nowhere; 6: a node did not
    answer.
    """

    async def gather(client: Client) -> tuple[dict[str, list[Net]], list[Pod], dict[str, Answer]]:
        nodes = (await client.list(NODES)).items
        pods = (await client.list(PODS)).items
        found = await ask(client, with_agent(nodes), "show", addresses=addresses, leases=leases)
        absent = sorted({node.metadata.name for node in nodes} - found.keys())
        found |= {name: Answer(nonce="", error=NO_AGENT) for name in absent}
        cidrs = {n.metadata.name: _cidrs(n) for n in nodes}
        if any(answer.error for answer in found.values()):
            cidrs |= await _blocks(client)
        return cidrs, pods, found

    cidrs, pods, answers = ClusterOptions(kubeconfig, context).run(gather)
    if addresses or leases:
        rows = _leases(answers)
        emit(rows, output, lambda: _lease_table(rows))
        missing = {str(a) for a in addresses} - {row["address"] for row in rows}
        for text in sorted(missing):
            click.echo(f"{text} is leased on no node that answered", err=True)
    else:
        rows = added_up(answers, cidrs, pods, by)
        emit(rows, output, lambda: _table(rows, by))
        missing = set()
    for node, answer in answers.items():
        if answer.error:
            click.echo(f"Node/{node}: {answer.error}", err=True)
    if missing:
        ctx.exit(FINDING)
    if any(answer.error not in ("", NO_AGENT) for answer in answers.values()):
        ctx.exit(INCONCLUSIVE)


def added_up(
    answers: Mapping[str, Answer], cidrs: Mapping[str, list[Net]], pods: Iterable[Pod], by: str
) -> list[Row]:
    """The figures of all nodes by ``by``, as plain data. ``cidrs`` of nodes: podCIDRs or blocks."""
    known = list(pods)
    if by == "namespace":
        return _by_namespace(answers, known)
    pools = {pool: ip_network(pool) for answer in answers.values() for pool in answer.pools}
    shared = [one for answer in answers.values() for one in answer.shared] if by == "pool" else []
    pools = {one.pool: ip_network(one.range) for one in shared} | dict(sorted(pools.items()))
    rows: dict[tuple[str, str, str], Row] = {}
    for one in sorted(shared, key=lambda one: (":" in one.range, one.pool)):
        row = rows.setdefault((one.pool, _family(one.range), ""), _of_pool(one))
        row["fullInSeconds"] = _sooner(row["fullInSeconds"], one.full_in)
    whole = {(pool, family) for pool, family, _ in rows}
    for node, answer in answers.items():
        found = answer.ranges if not answer.error else tuple(_by_pods(node, cidrs.get(node, []), known))
        source = "leases" if not answer.error else "pods"
        for one in found:
            name, family = _label(node, one, by, pools), _family(one.range)
            key = (name, family, node if by == "block" else "")
            row = rows.setdefault(key, _empty(by, name, family, source))
            if by == "block":
                row["node"] = node
            partial = ("used", "held") if (name, family) in whole else _FIGURES
            for figure in partial:
                row[figure] += getattr(one, figure)
            row["source"] = source if row["source"] == source else "mixed"
            row["fullInSeconds"] = _sooner(row["fullInSeconds"], one.full_in)
    for row in rows.values():
        row["free"] = max(0, row["size"] - row["used"] - row["foreign"] - row["reserved"])
        row["percent"] = round(100 * (row["size"] - row["free"]) / row["size"], 2) if row["size"] else 100.0
    return list(rows.values())


def _empty(by: str, name: str, family: str, source: str) -> Row:
    figures = dict.fromkeys((*_FIGURES, "free"), 0)
    return {by: name, "family": family, **figures, "percent": 0.0, "fullInSeconds": None, "source": source}


def _of_pool(one: RangeSeen) -> Row:
    """What no node has of it counts as well; what they use of it is to be added."""
    figures = {"size": one.size, "foreign": one.foreign, "reserved": one.reserved}
    return _empty("pool", one.pool, _family(one.range), "leases") | figures


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((seconds for seconds in (one, other) if seconds is not None), default=None)


def _by_namespace(answers: Mapping[str, Answer], pods: list[Pod]) -> list[Row]:
    counts: Counter[str] = Counter()
    for node, answer in answers.items():
        if not answer.error:
            counts.update(answer.namespaces)
            continue
        for pod in _here(pods, node):
            counts[pod.metadata.namespace] += len(pod.status.pod_ips or ())
    return [{"namespace": name or "-", "used": number} for name, number in sorted(counts.items())]


def _by_pods(node: str, cidrs: Iterable[Net], pods: list[Pod]) -> Iterable[RangeSeen]:
    """What the API alone says of a node: its ranges, and the pods that have addresses of them."""
    here = [_address(one.ip) for pod in _here(pods, node) for one in pod.status.pod_ips or ()]
    for cidr in cidrs:
        used = sum(1 for address in here if address in cidr)
        try:
            size = make_range(cidr).size
        except BadRange:
            size = cidr.num_addresses  # a block of Calico's may be as small as one address
        yield RangeSeen(range=str(cidr), size=max(size, used), used=used)


def _address(text: str) -> Addr | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _here(pods: Iterable[Pod], node: str) -> Iterable[Pod]:
    return (
        pod
        for pod in pods
        if pod.spec.node_name == node and not pod.spec.host_network and pod.status.phase not in _OVER
    )


def _cidrs(node: Node) -> list[Net]:
    found = []
    for text in node.spec.pod_cidrs or [node.spec.pod_cidr]:
        with contextlib.suppress(ValueError):
            found.append(ip_network(text))
    return found


async def _blocks(client: Client) -> dict[str, list[Net]]:
    """Each node's, by the API; nothing where there are none, or they may not be read."""
    found: dict[str, list[Net]] = {}
    with contextlib.suppress(NotFound, Forbidden):
        for obj in (await client.list(IPAM_BLOCKS)).items:
            with contextlib.suppress(BadBlock):
                block = read_block(obj)
                if block.node:
                    found.setdefault(block.node, []).append(block.cidr)
    return found


def _family(text: str) -> str:
    return "IPv6" if ":" in text else "IPv4"


def _label(node: str, one: RangeSeen, by: str, pools: Mapping[str, Net]) -> str:
    if by == "node":
        return node
    if by == "block":
        return one.range
    first = _address(one.range.partition(",")[0].partition("/")[0].partition("-")[0])
    return next((name for name, net in pools.items() if first is not None and first in net), "other")


def _table(rows: list[Row], by: str) -> str:
    if not rows:
        return "no ranges: no node has a podCIDR"
    if by == "namespace":
        return table(["NAMESPACE", "ADDRESSES"], [[r["namespace"], str(r["used"])] for r in rows])
    lines = []
    for row in rows:
        percent = f"{row['percent']:.0f} %" if row["percent"] >= 1 or not row["used"] else "<1 %"
        state = "error" if row["percent"] >= 95 else "warning" if row["percent"] >= 80 else "ok"
        left = row["fullInSeconds"]
        lines.append(
            [
                row[by],
                *([row["node"]] if by == "block" else []),
                row["family"],
                _number(row["size"]),
                _number(row["used"]),
                _number(row["held"]),
                _number(row["foreign"]),
                _number(row["reserved"]),
                _number(row["free"]),
                mark(percent, state),
                _duration(left) if left is not None else "-",
                row["source"],
            ]
        )
    heads = [by.upper(), *(["NODE"] if by == "block" else []), "FAMILY", "SIZE", "USED", "HELD", "FOREIGN"]
    return table([*heads, "RESERVED", "FREE", "FULL", "FULL-IN", "FROM"], lines)


def _number(value: int) -> str:
    """Of IPv6's ranges nobody wants to count the digits."""
    return str(value) if value < 1_000_000 else f"2^{log2(value):.0f}"


def _duration(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h" if seconds < 172800 else f"{seconds / 86400:.0f}d"


def _leases(answers: Mapping[str, Answer]) -> list[Row]:
    return [
        {
            "address": lease.address,
            "node": node,
            "pod": lease.pod,
            "container": lease.container,
            "interface": lease.ifname,
            "link": lease.link,
            "state": lease.state,
        }
        for node, answer in answers.items()
        for lease in answer.leases
    ]


def _lease_table(rows: list[Row]) -> str:
    return table(
        ["ADDRESS", "NODE", "POD", "CONTAINER", "LINK", "STATE"],
        [
            [r["address"], r["node"], r["pod"] or "-", r["container"][:13], r["link"] or "-", r["state"]]
            for r in rows
        ],
    )
