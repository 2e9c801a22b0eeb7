"""A probe run's objects in a cluster: put there, found out about, taken away."""

import asyncio
import datetime
import secrets
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from towpath.api.core import Node, Pod
from towpath.kube.client import Client
from towpath.kube.errors import ApiError, NotFound
from towpath.kube.kinds import DAEMONSETS, NAMESPACES, NODES, PODS, Kind, Raw
from towpath.multinet.status import STATUS
from towpath.probe import objects
from towpath.probe.objects import Run
from towpath.probe.paths import Found
from towpath.probe.plan import Plan

SERVICES: Kind[Raw] = Kind(plural="services", type=dict)
POLICIES: Kind[Raw] = Kind(plural="networkpolicies", type=dict, group="networking.k8s.io")
NETWORKS: Kind[Raw] = Kind(plural="network-attachment-definitions", type=dict, group="k8s.cni.cncf.io")
_READY_WITHIN, _ASK_EVERY = 120.0, 0.2
_GONE_WITHIN = 60.0


class ProbeFailed(Exception):
    """A probe run cannot start or go on; the text says why and what to do."""


def new_run(image: str, python: tuple[str, ...], seconds: float, network: str = "") -> Run:
    """A run with a name of its own that may be there until a quarter of an hour after its end."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds + 900)
    stamp = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Run(name=secrets.token_hex(4), expires=stamp, image=image, python=python, network=network)


async def put_targets(client: Client, run: Run, *, host: bool) -> None:
    """Namespace, targets, Service. ``host``: targets on the nodes' own network as well.

    Raises ApiError; ProbeFailed: the run's network is not there.
    """
    if run.network:
        namespace, _, name = run.network.partition("/")
        try:
            await client.get(NETWORKS, name, namespace)
        except NotFound as missing:
            raise ProbeFailed(f"there is no NetworkAttachmentDefinition {run.network}") from missing
    await client.create(NAMESPACES.raw(), objects.namespace(run))
    await client.create(DAEMONSETS, objects.targets(run), run.namespace)
    if host:
        await client.create(DAEMONSETS, objects.host_targets(run), run.namespace)
    await client.create(SERVICES, objects.service(run), run.namespace)


async def find(client: Client, run: Run, *, host: bool, say: Callable[[str], None]) -> Found:
    """Wait until every target is Ready; their addresses, the Service's, the nodes'. Raises ProbeFailed."""
    names = [objects.TARGETS, *([objects.HOST_TARGETS] if host else [])]
    deadline = asyncio.get_running_loop().time() + _READY_WITHIN
    while True:
        wanted = ready = 0
        for name in names:
            status = (await client.get(DAEMONSETS, name, run.namespace)).get("status") or {}
            wanted += status.get("desiredNumberScheduled", 0)
            ready += status.get("numberReady", 0)
        pods = (await client.list(PODS, run.namespace)).items
        if wanted and ready == wanted:
            return await _addresses(client, run, pods)
        say(f"targets: {ready} of {wanted} Ready")
        if asyncio.get_running_loop().time() > deadline:
            if not ready:
                raise ProbeFailed(await _why_not_ready(client, run))
            say(f"going on without {wanted - ready} of {wanted} targets, which are not Ready")
            return await _addresses(client, run, pods)
        await asyncio.sleep(_ASK_EVERY)


async def _addresses(client: Client, run: Run, pods: list[Pod]) -> Found:
    service = await client.get(SERVICES, objects.SERVICE, run.namespace)
    spec = service["spec"]
    nodes = (await client.list(NODES)).items
    by_app: dict[str, dict[str, tuple[str, ...]]] = {objects.TARGETS: {}, objects.HOST_TARGETS: {}}
    secondary: dict[str, tuple[str, ...]] = {}
    for pod in sorted(pods, key=lambda pod: pod.spec.node_name):
        app = (pod.metadata.labels or {}).get("app.kubernetes.io/name", "")
        if app in by_app and _is_ready(pod):
            by_app[app][pod.spec.node_name] = tuple(ip.ip for ip in pod.status.pod_ips or [])
            if app == objects.TARGETS and run.network:
                secondary[pod.spec.node_name] = in_network(pod, run.network)
    if run.network and not any(secondary.values()):
        raise ProbeFailed(f"no target's annotation {STATUS} tells an address in {run.network}")
    return Found(
        targets=by_app[objects.TARGETS],
        nodes={node.metadata.name: _internal(node) for node in nodes},
        service=tuple(spec.get("clusterIPs") or [spec["clusterIP"]]),
        node_ports={f"{p['targetPort']}/{p['protocol']}": p["nodePort"] for p in spec["ports"]},
        host_targets=tuple(by_app[objects.HOST_TARGETS]),
        dns=await _cluster_dns(client),
        secondary=secondary,
    )


def in_network(pod: Pod, network: str) -> tuple[str, ...]:
    """The pod's addresses there, as Towpath's agent, or Multus, wrote them; none when nobody did."""
    try:
        entries = msgspec.json.decode((pod.metadata.annotations or {}).get(STATUS, "[]"), type=list[_Entry])
    except msgspec.DecodeError:
        return ()
    return tuple(ip for entry in entries if entry.name == network for ip in entry.ips)


class _Entry(msgspec.Struct, frozen=True):
    name: str = ""
    ips: tuple[str, ...] = ()


def _is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def _internal(node: Node) -> tuple[str, ...]:
    return tuple(a.address for a in node.status.addresses or [] if a.type == "InternalIP")


async def _cluster_dns(client: Client) -> tuple[str, ...]:
    """The addresses of the cluster's DNS; its Service has this label in every distribution."""
    services = await client.list(SERVICES, "kube-system", label_selector="k8s-app=kube-dns")
    for service in services.items:
        if service["spec"].get("clusterIP") not in (None, "", "None"):
            return tuple(service["spec"].get("clusterIPs") or [service["spec"]["clusterIP"]])
    return ()


async def _why_not_ready(client: Client, run: Run) -> str:
    reasons = set()
    for pod in (await client.list(PODS.raw(), run.namespace)).items:
        for status in pod.get("status", {}).get("containerStatuses") or []:
            waiting = status.get("state", {}).get("waiting") or {}
            if waiting:
                reasons.add(f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip())
    why = "; ".join(sorted(reasons)) or "their pods were not started"
    return f"no target became Ready within {_READY_WITHIN:.0f} s: {why} (is --image one the nodes can run?)"


async def put_prober(client: Client, run: Run, node: str, plan: Plan, *, host_network: bool) -> str:
    """Start a prober's pod; returns its name. Raises ApiError."""
    pod = objects.prober(run, node, plan, host_network=host_network)
    await client.create(PODS.raw(), pod, run.namespace)
    name: str = pod["metadata"]["name"]
    return name


async def close_denied_port(client: Client, run: Run, outside: tuple[str, ...]) -> None:
    """From now on what is denied is denied. Raises ApiError."""
    for policy in objects.policies(run, outside):
        await client.create(POLICIES, policy, run.namespace)


async def remove(client: Client, namespace: str) -> bool:
    """Delete a run's namespace; whether it is gone within a minute."""
    try:
        await client.delete(NAMESPACES, namespace)
        deadline = asyncio.get_running_loop().time() + _GONE_WITHIN
        while asyncio.get_running_loop().time() < deadline:
            await client.get(NAMESPACES, namespace)
            await asyncio.sleep(_ASK_EVERY)
    except NotFound:
        return True
    return False


async def leftovers(client: Client, now: datetime.datetime) -> Mapping[str, bool]:
    """Namespaces of probe runs, and whether their time is over."""
    found = await client.list(NAMESPACES.raw(), label_selector=objects.LABEL)
    return {ns["metadata"]["name"]: _expired(ns, now) for ns in found.items}


def _expired(namespace: Raw, now: datetime.datetime) -> bool:
    text = (namespace["metadata"].get("annotations") or {}).get(objects.EXPIRES, "")
    try:
        return datetime.datetime.fromisoformat(text) < now
    except ValueError:
        return True  # not written by a run that finished starting


async def agent_image(client: Client) -> str:
    """The image of this cluster's Towpath agent; "" where there is none."""
    try:
        agent: dict[str, Any] = await client.get(DAEMONSETS, "towpath", "kube-system")
    except ApiError:
        return ""
    image: str = agent["spec"]["template"]["spec"]["containers"][0].get("image", "")
    return image


async def image_for(client: Client, given: str, *, in_lab: bool) -> tuple[str, tuple[str, ...]]:
    """An image with towpath in it and its interpreter: ``given``, or that of the cluster's agent.

    Raises ProbeFailed where there is none.
    """
    if in_lab:
        return given or "towpath/probe", (sys.executable,)  # a lab's pods run this machine's programs
    image = given or await agent_image(client)
    if not image:
        raise ProbeFailed(
            "this cluster has no Towpath agent whose image could be used; give one with --image"
        )
    return image, ("python3",)
