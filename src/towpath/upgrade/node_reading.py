"""Sends a pod to every node that reads what the API does not know, and brings home what it says.

The pod is on the host's network, sees the host's file system read-only, and ends by itself. It is not
privileged: it has the few capabilities that reading takes (docs/preflight.md names them).
"""

import asyncio
import base64
import contextlib
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from towpath.inventory.cluster import Inventory
from towpath.inventory.node_report import NodeReport
from towpath.kube.client import Client
from towpath.kube.errors import ApiError, KubeError
from towpath.kube.kinds import PODS, Raw

LABELS = {"app.kubernetes.io/name": "towpath-node-reader", "app.kubernetes.io/managed-by": "towpath"}
NAMESPACE = "kube-system"
_AT_ONCE, _WITHIN, _ASK_EVERY = 20, 90.0, 0.2
# To look into other containers' file systems and sockets, and to run the node's own legacy iptables.
_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_CHROOT", "SYS_PTRACE", "DAC_READ_SEARCH")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """``image`` with towpath in it, ``python`` its interpreter; ``churn`` seconds to look at the rules."""

    image: str
    python: tuple[str, ...]
    churn: float = 0.0
    keep: bool = False


class Answer(msgspec.Struct, frozen=True):
    """``report`` None: ``why`` there is none."""

    report: NodeReport | None
    why: str = ""


async def read_nodes(
    client: Client, nodes: Iterable[str], reading: Reading, progress: Callable[[str], None]
) -> dict[str, Answer]:
    """One answer a node, whatever happens. Nothing of it stays in the cluster."""
    wanted = sorted(nodes)
    answers: dict[str, Answer] = {}
    turn = asyncio.Semaphore(_AT_ONCE)
    run = secrets.token_hex(3)
    await _clear(client)

    async def one(node: str) -> None:
        async with turn:
            answers[node] = await _read(client, node, run, reading)
            progress(f"reading nodes: {len(answers)} of {len(wanted)}")

    await asyncio.gather(*(one(node) for node in wanted))
    return answers


async def with_reports(
    client: Client, found: Inventory, reading: Reading, progress: Callable[[str], None]
) -> Inventory:
    """The inventory with what was found on its nodes."""
    answers = await read_nodes(client, [node.facts.name for node in found.nodes], reading, progress)
    nodes = tuple(
        msgspec.structs.replace(
            node, report=answers[node.facts.name].report, unread=answers[node.facts.name].why
        )
        for node in found.nodes
    )
    return msgspec.structs.replace(found, nodes=nodes)


async def _read(client: Client, node: str, run: str, reading: Reading) -> Answer:
    pod = reader_pod(node, run, reading)
    name = pod["metadata"]["name"]
    try:
        await client.create(PODS.raw(), pod, NAMESPACE)
        try:
            if why := await _ended(client, name, reading.churn):
                return Answer(None, why)
            text = await client.request("GET", PODS.path(NAMESPACE, name, "log"), operation="read the log of")
            return parse(text)
        finally:
            with contextlib.suppress(KubeError):
                await asyncio.shield(client.delete(PODS, name, NAMESPACE, grace_seconds=0))
    except KubeError as refused:
        return Answer(None, str(refused))


def parse(log: bytes) -> Answer:
    """The report in a reader's log: its last line."""
    line = (log.strip().splitlines() or [b""])[-1]
    try:
        raw = zlib.decompress(base64.b64decode(line, validate=True))
        return Answer(msgspec.json.decode(raw, type=NodeReport))
    except (ValueError, zlib.error, msgspec.DecodeError):
        said = line.decode(errors="replace")[:200]
        return Answer(None, f"the reader said nothing that can be read: {said!r}")


async def _ended(client: Client, name: str, churn: float) -> str:
    """Empty when it has succeeded, else why not."""
    deadline = asyncio.get_running_loop().time() + _WITHIN + churn
    raw: Raw = {}
    while asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(ApiError):
            raw = await client.get(PODS.raw(), name, NAMESPACE)
        status = raw.get("status") or {}
        match status.get("phase"):
            case "Succeeded":
                return ""
            case "Failed":
                return f"the reader's pod failed: {_why(status) or status.get('message', '')}"
        await asyncio.sleep(_ASK_EVERY)
    return f"the reader's pod did not end within {_WITHIN + churn:.0f} s: {_why(raw.get('status') or {})}"


def _why(status: dict[str, Any]) -> str:
    words = []
    for one in status.get("containerStatuses") or ():
        for state in (one.get("state") or {}).values():
            words += [str(state.get("reason", "")), str(state.get("message", ""))]
    return " ".join(filter(None, words)) or "its container was not started"


def reader_pod(node: str, run: str, reading: Reading) -> dict[str, Any]:
    """The pod for a node."""
    words = ["--host", "/host", "--packed", "--churn", f"{reading.churn:g}"]
    container = {
        "name": "reader",
        "image": reading.image,
        "command": [
            *reading.python,
            "-m",
            "towpath.node_reader",
            *words,
            *(["--keep"] if reading.keep else []),
        ],
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": list(_CAPABILITIES)},
            "seLinuxOptions": {"type": "spc_t"},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": True}],
    }
    plain = re.sub("[^a-z0-9-]", "-", node.lower())
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"towpath-node-reader-{run}-{plain}"[:253].rstrip("-"),
            "namespace": NAMESPACE,
            "labels": LABELS,
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "hostPID": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": int(_WITHIN + reading.churn),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "host", "hostPath": {"path": "/", "type": "Directory"}}],
        },
    }


async def _clear(client: Client) -> None:
    """Ended pods that a killed command left behind."""
    selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
    with contextlib.suppress(KubeError):
        for pod in (await client.list(PODS, NAMESPACE, label_selector=selector)).items:
            if pod.status.phase in ("Succeeded", "Failed"):
                await client.delete(PODS, pod.metadata.name, NAMESPACE, grace_seconds=0)
