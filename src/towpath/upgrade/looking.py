"""Takes one look at the network through the API, for ``watching`` to compare."""

import asyncio
import re
import time

import msgspec

from towpath.catalogue.model import LogPattern
from towpath.inventory.cluster import node_state
from towpath.inventory.components import component_pod, components, node_facts
from towpath.kube.client import Client
from towpath.kube.discovery import listable
from towpath.kube.errors import ApiRefused, Forbidden, NotFound
from towpath.kube.kinds import DAEMONSETS, NODES, PODS, Kind, Raw
from towpath.preflight.kernel_checks import of_nodes
from towpath.upgrade.node_reading import Reading, read_nodes
from towpath.upgrade.watching import NodeSeen, PodSeen, Sample

_GROUPS = ("crd.projectcalico.org", "policy.networking.k8s.io", "k8s.cni.cncf.io", "whereabouts.cni.cncf.io")
_USAGE: Kind[Raw] = Kind(plural="pods", type=dict, group="metrics.k8s.io", version="v1beta1")
_LONGEST, _MOST = 200, 5  # of a line, and lines of a pod
_AT_ONCE = 20  # logs
_MEMORY = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0, "": 1 / (1 << 20)}
_CPU = {"n": 1e-6, "u": 1e-3, "m": 1.0, "": 1000.0}


async def look(client: Client, patterns: tuple[LogPattern, ...], since: float) -> Sample:
    """``since``: seconds since 1970; logs are read from then on. Raises ApiError when pods cannot be read."""
    left_out: list[str] = []
    refused: list[ApiRefused] = []
    found: list[PodSeen] = []
    for space, own in (await _network_pods(client)).items():
        usage = await _usage(client, space, left_out)
        found += [await _pod(client, raw, patterns, since, usage, refused) for raw in own]
    left_out += map(str, refused)
    objects = await _counts(client, left_out)
    ordered = tuple(sorted(found, key=lambda pod: (pod.node, pod.name)))
    return Sample(at=time.time(), pods=ordered, objects=objects, left_out=tuple(dict.fromkeys(left_out)))


async def logs(
    client: Client, patterns: tuple[LogPattern, ...], since: float
) -> tuple[tuple[PodSeen, ...], tuple[str, ...]]:
    """The network's pods by their logs alone, and those that are not ours to read. Raises ApiError.

    What has no log, as it has not begun or is gone meanwhile, is for others to find.
    """
    refused: list[ApiRefused] = []
    pods = [raw for own in (await _network_pods(client)).values() for raw in own]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(raw: Raw) -> PodSeen:
        async with gate:
            return await _pod(client, raw, patterns, since, {}, refused)

    seen = await asyncio.gather(*map(one, pods))
    unread = dict.fromkeys(str(one) for one in refused if isinstance(one, Forbidden))
    return tuple(sorted(seen, key=lambda pod: (pod.node, pod.name))), tuple(unread)


async def _network_pods(client: Client) -> dict[str, list[Raw]]:
    """By namespace, those of the network's DaemonSets."""
    daemonsets = (await client.list(DAEMONSETS)).items
    those = {(part.namespace, part.name) for part in components(daemonsets, ())}
    metas = [raw["metadata"] for raw in daemonsets]
    uids = {meta["uid"] for meta in metas if (meta["namespace"], meta["name"]) in those}
    found = {}
    for space in sorted({space for space, _ in those}):
        pods = (await client.list(PODS.raw(), space)).items
        found[space] = [
            raw
            for raw in pods
            if any(owner.get("uid") in uids for owner in raw["metadata"].get("ownerReferences") or ())
        ]
    return found


async def _pod(
    client: Client,
    raw: Raw,
    patterns: tuple[LogPattern, ...],
    since: float,
    usage: dict[str, tuple[float, float]],
    refused: list[ApiRefused],
) -> PodSeen:
    pod = component_pod(raw)
    memory, cpu = usage.get(pod.name, (0.0, 0.0))
    return PodSeen(
        node=pod.node,
        name=f"{raw['metadata']['namespace']}/{pod.name}",
        ready=pod.ready,
        restarts=sum(one.restarts for one in pod.containers),
        why="; ".join(f"{one.name} {one.why or one.state}" for one in pod.containers if not one.ready),
        lines=await _lines(client, raw, patterns, since, refused),
        memory_mb=memory,
        cpu_milli=cpu,
    )


async def _lines(
    client: Client, raw: Raw, patterns: tuple[LogPattern, ...], since: float, refused: list[ApiRefused]
) -> tuple[tuple[str, str], ...]:
    """Those that are known to mean trouble, each once."""
    meta = raw["metadata"]
    found: dict[str, str] = {}
    seconds = str(max(1, int(time.time() - since) + 1))
    for container in (one["name"] for one in raw["spec"]["containers"]):
        path = PODS.path(meta["namespace"], meta["name"], "log")
        query = {"container": container, "sinceSeconds": seconds}
        try:
            text = await client.request("GET", path, query=query, operation="read the log of")
        except ApiRefused as no:  # not started yet, gone meanwhile, or not ours to read
            refused.append(no)
            continue
        for line in text.decode(errors="replace").splitlines():
            means = next((one.means for one in patterns if re.search(one.pattern, line)), "")
            if means and len(found) < _MOST:
                found.setdefault(means, line.strip()[:_LONGEST])
    return tuple((line, means) for means, line in found.items())


async def _usage(client: Client, space: str, left_out: list[str]) -> dict[str, tuple[float, float]]:
    """Pod to MB and thousandths of a processor, of metrics-server (RKE2 has one)."""
    try:
        items = (await client.list(_USAGE, space)).items
    except (Forbidden, NotFound) as refused:
        left_out.append(f"processor and memory of pods: {refused}")
        return {}
    found = {}
    for raw in items:
        used = [one.get("usage") or {} for one in raw.get("containers") or ()]
        memory = sum(quantity(one.get("memory", "0"), _MEMORY) for one in used)
        found[raw["metadata"]["name"]] = (memory, sum(quantity(one.get("cpu", "0"), _CPU) for one in used))
    return found


def quantity(text: str, units: dict[str, float]) -> float:
    """``12345Ki`` or ``1500000n`` in the unit that ``units`` leads to; 0 for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    return float(match[1]) * units[match[2]] if match and match[2] in units else 0.0


async def _counts(client: Client, left_out: list[str]) -> dict[str, int]:
    found = {}
    for kind, _ in await listable(client, _GROUPS):
        try:
            found[f"{kind.plural}.{kind.group}"] = len((await client.list(kind)).items)
        except (Forbidden, NotFound) as refused:
            left_out.append(str(refused))
    return found


async def look_at_nodes(client: Client, reading: Reading) -> tuple[tuple[NodeSeen, ...], tuple[str, ...]]:
    """Every node that could be read, and why others could not. Raises ApiError."""
    raws = {raw["metadata"]["name"]: raw for raw in (await client.list(NODES.raw())).items}
    answers = await read_nodes(client, raws, reading, lambda _: None)
    seen, why = [], []
    for name, answer in sorted(answers.items()):
        if answer.report is None:
            why.append(f"Node/{name}: {answer.why}")
            continue
        state = msgspec.structs.replace(
            node_state(raws[name], node_facts(raws[name]), 0), report=answer.report
        )
        wrong, _ = of_nodes([state])
        told = tuple((one.code, one.message) for one in wrong if one.severity == "error")
        seen.append(NodeSeen(node=name, flow=answer.report.flow, wrong=told))
    return tuple(seen), tuple(why)


def load(text: bytes) -> Sample:
    """A baseline that was kept. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Sample)
