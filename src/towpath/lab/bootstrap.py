"""The first seconds of a cluster: wait for the API server, install the agent, wait until all is Ready."""

import asyncio
import os
import time
from contextlib import suppress
from typing import Any

from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, KubeError, NotFound, ServerError, Unreachable
from towpath.kube.kinds import CONFIG_MAPS, DAEMONSETS, NODES, PODS, Kind, Raw
from towpath.lab import canal, credentials, manifests, rundir
from towpath.lab.rootfs import INSTALLING
from towpath.lab.topology import LabSpec

CRDS: Kind[Raw] = Kind(
    plural="customresourcedefinitions", type=dict, group="apiextensions.k8s.io", namespaced=False
)
SERVICE_ACCOUNTS: Kind[Raw] = Kind(plural="serviceaccounts", type=dict)

_DEADLINE, _DEADLINE_A_NODE = 120.0, 6.0  # fifty nodes on two busy cores
_POLL, _POLL_A_NODE = 0.05, 0.01  # in a large lab, looking would take from what is looked at


class _NotReady(Exception):
    """The cluster did not become ready in time; the text says what is missing."""


def run(spec: LabSpec, launcher: int, host_port: int) -> None:
    """In a forked child: bring the cluster up and report to the launcher's socket."""
    try:
        server = f"https://127.0.0.1:{host_port}"
        _say(launcher, {"kubeconfig": credentials.kubeconfig_text(server, credentials.ADMIN)})
        asyncio.run(_bring_up(spec, launcher))
        _say(launcher, {"ready": True})
    except (_NotReady, KubeError) as failed:
        _say(launcher, {"error": str(failed), "code": "TP9008"})


def _say(launcher: int, message: dict[str, object]) -> None:
    with suppress(OSError):
        os.write(launcher, rundir.as_line(message))


async def _bring_up(spec: LabSpec, launcher: int) -> None:
    config = credentials.client_config(spec, credentials.ADMIN)
    async with Client(config, user_agent="towpath-lab") as client:
        _say(launcher, {"progress": f"{len(spec.nodes)} nodes wired, waiting for the API server"})
        within = _DEADLINE + _DEADLINE_A_NODE * len(spec.nodes)
        account = manifests.service_account()
        await _until(lambda: _create(client, SERVICE_ACCOUNTS, account), "the API server", within)
        if spec.control_plane == "real":
            from towpath.lab.real.rights import rights

            for kind, obj in rights():
                await _create(client, kind, obj)
        for definition in spec.crds:
            await _create(client, CRDS, definition)
        _say(launcher, {"api": True})
        await _allowed()
        for obj in manifests.network(spec):
            await _create(client, CONFIG_MAPS if obj["kind"] == "ConfigMap" else DAEMONSETS, obj)
        _say(launcher, {"progress": "API server up, waiting for agents"})
        last = ""

        async def ready() -> bool:
            nonlocal last
            waiting, last_seen = await _waiting(client, spec)
            if last_seen != last:
                last = last_seen
                _say(launcher, {"progress": last_seen})
            return not waiting

        try:
            poll = max(_POLL, _POLL_A_NODE * len(spec.nodes))
            await _until(ready, "all nodes and agents", within, poll, lambda: last)
        except _NotReady as late:
            raise _NotReady(f"{late}{await _last_words(client)}") from late


async def _allowed() -> None:
    """Until the launcher, who may fill the cluster first, lets the network be installed."""
    while True:
        if INSTALLING.exists():
            return
        await asyncio.sleep(_POLL)


async def _create(client: Client, kind: Kind[Raw], obj: dict[str, Any]) -> bool:
    with suppress(AlreadyExists):
        await client.create(kind, obj, manifests.NAMESPACE)
    return True


async def _until(check: Any, what: str, within: float, poll: float = _POLL, detail: Any = lambda: "") -> None:
    """Repeat until true; an API server that is not there yet is not an error."""
    deadline = time.monotonic() + within
    problem = ""
    while time.monotonic() < deadline:
        try:
            if await check():
                return
            problem = detail()
        except (Unreachable, ServerError, NotFound) as not_yet:
            problem = str(not_yet)
        await asyncio.sleep(poll)
    raise _NotReady(f"waited {within:.0f} s for {what}: {problem}")


async def _last_words(client: Client) -> str:
    """The last line of an agent that is not ready: most often it says why."""
    with suppress(KubeError):
        for pod in (await client.list(PODS, manifests.NAMESPACE, label_selector="k8s-app=towpath")).items:
            if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or []):
                continue
            path = PODS.path(manifests.NAMESPACE, pod.metadata.name, "log")
            line = (await client.request("GET", path, query={"tailLines": "1"})).decode(errors="replace")
            return f"; the agent on {pod.spec.node_name} said last: {line.strip()[:400]}"
    return ""


async def _waiting(client: Client, spec: LabSpec) -> tuple[bool, str]:
    """Whether something is missing, and one line of progress."""
    nodes = (await client.list(NODES)).items
    ready = sum(
        any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or []) for node in nodes
    )
    name = canal.NAME if spec.cni == "canal" else manifests.DAEMONSET
    daemonset = await client.get(DAEMONSETS, name, manifests.NAMESPACE)
    agents = int((daemonset.get("status") or {}).get("numberReady") or 0)
    wanted = len(spec.nodes)
    return ready < wanted or agents < wanted, f"{ready}/{wanted} nodes Ready, {agents}/{wanted} agents Ready"
