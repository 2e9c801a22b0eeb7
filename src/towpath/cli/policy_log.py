"""``towpath policy log``: denied packets and what rules log, from the agents' own logs."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import click
import msgspec

from towpath.api.core import Pod
from towpath.api.policy_record import EVENT, LOGGER, LOST, LogLine, PolicyRecord
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import PRECONDITION, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, table
from towpath.cli.policy_input import Input, Origin
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, KubeError, NotFound
from towpath.kube.kinds import PODS

AGENTS, CONTAINER = "k8s-app=towpath", "agent"
_LIST_EVERY = 3.0
_AGAIN = 1.0
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_HEADERS = ["TIME", "NODE", "ACTION", "DIRECTION", "PROTOCOL", "FROM", "TO", "DECIDED BY"]


class Wanted(msgspec.Struct, frozen=True):
    """Which records; empty: any. ``pods``: ``NAMESPACE/NAME``, ``namespace``: at either end."""

    node: str
    namespace: str
    pods: frozenset[str]
    actions: frozenset[str]

    def has(self, record: PolicyRecord) -> bool:
        """Whether it is asked for."""
        ends = [record.source.object, record.destination.object]
        names = {end.removeprefix("Pod/") for end in ends if end.startswith("Pod/")}
        return (
            (not self.actions or record.action in self.actions)
            and (not self.pods or not self.pods.isdisjoint(names))
            and (not self.namespace or any(name.startswith(f"{self.namespace}/") for name in names))
        )


class Line(msgspec.Struct, frozen=True):
    """What an agent wrote: a record, or what it could not tell (``lost``)."""

    node: str
    record: PolicyRecord | None = None
    lost: str = ""


class Places(msgspec.Struct, frozen=True):
    """Where the rules of policies stand, as far as files were given."""

    origins: Mapping[str, Origin]

    def of(self, record: PolicyRecord) -> str:
        """``FILE:LINE`` of the rule, or nothing."""
        origin = self.origins.get(record.policy)
        return origin.where(record.rule) if origin is not None else ""


async def agents(client: Client, space: str, node: str) -> dict[str, Pod]:
    """The agents' pods by name. Raises CliError if there are none, KubeError."""
    listing = await client.list(PODS, space, label_selector=AGENTS)
    running = {p.metadata.name: p for p in listing.items if p.status.phase == "Running"}
    found = {name: pod for name, pod in running.items() if not node or pod.spec.node_name == node}
    if not found:
        where = f" on node {node}" if node else ""
        raise CliError(
            f"no agent runs in namespace {space}{where}: pods labelled {AGENTS} are looked for; "
            "name their namespace with --agent-namespace",
            PRECONDITION,
        )
    return found


async def lines(client: Client, pod: Pod, since: datetime, *, follow: bool) -> AsyncIterator[Line]:
    """Of one agent's log, from a time on. Raises KubeError."""
    space, name = pod.metadata.namespace, pod.metadata.name
    query = {"container": CONTAINER, "sinceTime": since.strftime("%Y-%m-%dT%H:%M:%SZ")}
    query |= {"follow": "true"} if follow else {}
    rest = b""
    path = PODS.path(space, name, "log")
    async with aclosing(client.stream(path, query=query, operation="read the log of")) as pieces:
        async for piece in pieces:
            *whole, rest = (rest + piece).split(b"\n")
            for text in whole:
                if (line := parsed(text, pod.spec.node_name)) is not None:
                    yield line


def parsed(text: bytes, node: str) -> Line | None:
    """None for all that the agent logs of other things."""
    if LOGGER.encode() not in text:
        return None
    try:
        line = msgspec.json.decode(text, type=LogLine)
    except msgspec.DecodeError:
        return None
    if line.logger != LOGGER:
        return None
    if line.event == EVENT and line.record is not None:
        return Line(node, line.record)
    if line.event == LOST:
        parts = [f"{line.denials} denied packets came too fast to be told"] if line.denials else []
        parts += [f"{line.messages} messages were lost"] if line.messages else []
        return Line(node, lost=", ".join(parts))
    return None


async def past(client: Client, space: str, wanted: Wanted, since: datetime) -> list[Line]:
    """All there is, by time. Raises CliError, KubeError."""
    pods = await agents(client, space, wanted.node)
    found: list[Line] = []

    async def read(pod: Pod) -> None:
        try:
            found.extend([line async for line in lines(client, pod, since, follow=False)])
        except Forbidden as refused:
            raise CliError(f"{refused}: get on pods/log in namespace {space} is needed") from refused
        except KubeError as error:
            click.echo(f"towpath: {pod.spec.node_name} is left out: {error}", err=True)

    await asyncio.gather(*(read(pod) for pod in pods.values()))
    kept = [line for line in found if line.record is None or wanted.has(line.record)]
    return sorted(kept, key=lambda line: line.record.time if line.record is not None else "")


async def followed(client: Client, space: str, wanted: Wanted, since: datetime) -> AsyncGenerator[Line, None]:
    """For ever: agents that end are followed again, those that come are followed too. Raises as ``past``."""
    queue: asyncio.Queue[Line | CliError] = asyncio.Queue()
    following: dict[str, asyncio.Task[None]] = {}
    await agents(client, space, wanted.node)
    try:
        listing = asyncio.create_task(_keep_up(client, space, wanted.node, since, following, queue))
        while True:
            line = await queue.get()
            if isinstance(line, CliError):
                raise line
            if line.record is None or wanted.has(line.record):
                yield line
    finally:
        tasks = [listing, *following.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_up(
    client: Client,
    space: str,
    node: str,
    since: datetime,
    following: dict[str, asyncio.Task[None]],
    queue: "asyncio.Queue[Line | CliError]",
) -> None:
    while True:
        try:
            found = await agents(client, space, node)
        except (KubeError, CliError) as error:
            click.echo(f"towpath: {error}", err=True)
            found = {}
        for name, pod in found.items():
            if name not in following or following[name].done():
                following[name] = asyncio.create_task(_follow(client, pod, since, queue))
        await asyncio.sleep(_LIST_EVERY)


async def _follow(client: Client, pod: Pod, since: datetime, queue: "asyncio.Queue[Line | CliError]") -> None:
    """Until the pod is gone. A stream that ends goes on where it ended, and nothing is told twice."""
    last: list[Line] = []
    while True:
        told = set(map(msgspec.json.encode, last))
        try:
            async for line in lines(client, pod, since, follow=True):
                if line.record is None:
                    await queue.put(line)
                    continue
                if msgspec.json.encode(line) in told:
                    continue
                at = datetime.fromisoformat(line.record.time).replace(microsecond=0)
                last = [*(last if at == since else []), line]
                since = max(since, at)
                await queue.put(line)
        except NotFound:
            return
        except Forbidden as refused:
            space = pod.metadata.namespace
            await queue.put(CliError(f"{refused}: get on pods/log in namespace {space} is needed"))
            return
        except KubeError as error:
            click.echo(f"towpath: {pod.spec.node_name}: {error}", err=True)
        await asyncio.sleep(_AGAIN)
        try:
            await client.get(PODS, pod.metadata.name, pod.metadata.namespace)
        except NotFound:
            return
        except KubeError:
            continue


def cells(record: PolicyRecord, places: Places) -> list[str]:
    """A row for people."""
    states = {"deny": "error", "cut": "error", "log": "ok"}
    then = f", then {record.verdict}" if record.verdict else ""
    where = places.of(record)
    return [
        record.time,
        record.node,
        mark(record.action, states[record.action]),
        record.direction or "-",
        record.what(),
        str(record.source),
        str(record.destination),
        f"{record.because()}{then}{f' ({where})' if where else ''}",
    ]


def as_data(record: PolicyRecord, places: Places) -> dict[str, object]:
    """For programs: the record, and where its rule stands."""
    plain: dict[str, object] = msgspec.to_builtins(record)
    where = places.of(record)
    return {**plain, "where": where} if where else plain


def seconds_of(text: str) -> float:
    """``90s``, ``10m``, ``1h30m``. Raises CliError."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise CliError(f"--since {text!r} is no duration; write 90s, 10m or 1h30m", USAGE)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what comes; from now on unless --since says else.")
@click.option("--since", default="", metavar="DURATION", help="How far back: 90s, 10m (default: 1h).")
@click.option("--node", default="", help="Of this node alone.")
@click.option("-n", "--namespace", default="", help="Of pods of this namespace, at either end.")
@click.option("--pod", "pods", multiple=True, metavar="NAMESPACE/NAME", help="Of this pod, at either end.")
@click.option(
    "--action", "actions", multiple=True, type=click.Choice(("deny", "log", "cut")), help="Of these only."
)
@click.option("--agent-namespace", default="kube-system", show_default=True, help="Where the agents run.")
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE|DIR|-", help="Say where in these a rule stands."
)
@formats_option("table", "json", "jsonl")
@cluster_options
def log(
    follow: bool,
    since: str,
    node: str,
    namespace: str,
    pods: tuple[str, ...],
    actions: tuple[str, ...],
    agent_namespace: str,
    files: tuple[str, ...],
    output: str,
    kubeconfig: str,
    context: str,
) -> None:
    """Packets that policies denied, that rules of theirs log, and flows they cut, with the rule.

    Denied packets are a sample: what came too fast is counted on stderr. They are read from the agents' logs,
    which takes get and list on pods and get on pods/log in their namespace.
    """
    if follow and output == "json":
        raise CliError("-o json is one document, which --follow never ends; use -o jsonl", USAGE)
    for name in pods:
        if name.count("/") != 1:
            raise CliError(f"--pod {name!r} is not NAMESPACE/NAME", USAGE)
    wanted = Wanted(node, namespace, frozenset(pods), frozenset(actions))
    cluster = ClusterOptions(kubeconfig, context)
    given = Input(files, False, cluster, namespace or "default", None)
    places = Places({str(key): sourced.origin for key, sourced in given.read(files).items()})
    back = seconds_of(since) if since else 0.0 if follow else 3600.0
    start = datetime.now(UTC) - timedelta(seconds=back)
    if follow:
        cluster.run(lambda client: _print_all(client, agent_namespace, wanted, start, places, output))
        return
    found = cluster.run(lambda client: past(client, agent_namespace, wanted, start))
    records = [line.record for line in found if line.record is not None]
    emit(
        [as_data(one, places) for one in records],
        output,
        lambda: table(_HEADERS, [cells(one, places) for one in records]) if records else "no packets",
    )
    for line in found:
        _tell_lost(line)


async def _print_all(
    client: Client, space: str, wanted: Wanted, since: datetime, places: Places, output: str
) -> None:
    async with aclosing(followed(client, space, wanted, since)) as found:
        async for line in found:
            _tell_lost(line)
            if line.record is None:
                continue
            if output == "jsonl":
                click.echo(msgspec.json.encode(as_data(line.record, places)).decode())
            else:
                click.echo("  ".join(cells(line.record, places)))


def _tell_lost(line: Line) -> None:
    if line.lost:
        click.echo(f"towpath: {line.node}: {line.lost}", err=True)
