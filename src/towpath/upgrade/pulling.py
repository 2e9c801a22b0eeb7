"""Has every node pull the images to come before anything is replaced, and finds out which they are by digest.

A node pulls while its network is down otherwise: the kubelet ends the old pod first. And a tag may be moved
between two nodes' turns: what runs after a node's turn is compared with what was pulled here.
"""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from towpath.inventory.images import Image
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.kube.kinds import PODS, Raw

LABELS = {"app.kubernetes.io/name": "towpath-pull", "app.kubernetes.io/managed-by": "towpath"}
_AT_ONCE, _ASK_EVERY = 20, 0.25
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65534,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class Pulled(msgspec.Struct, frozen=True):
    """Of a node: image as it was asked for to its digest; ``why`` not all of them are there."""

    digests: dict[str, str] = {}
    why: str = ""


class NotPulled(Exception):
    """Some node has not got them, or not the same as the others; the message says which and why."""


async def pull(
    client: Client,
    namespace: str,
    nodes: Iterable[str],
    images: Sequence[str],
    secrets_of: Sequence[dict[str, str]],
    within: float,
    progress: Callable[[str], None],
) -> dict[str, Pulled]:
    """Each node's answer, whatever happens. ``secrets_of``: the DaemonSet's imagePullSecrets."""
    wanted, answers, turn, run = (
        sorted(nodes),
        dict[str, Pulled](),
        asyncio.Semaphore(_AT_ONCE),
        secrets.token_hex(3),
    )

    async def one(node: str) -> None:
        async with turn:
            answers[node] = await _pull(client, puller(namespace, node, run, images, secrets_of), within)
            progress(f"images pulled on {len(answers)} of {len(wanted)} nodes")

    await asyncio.gather(*(one(node) for node in wanted))
    return answers


def agreed(answers: dict[str, Pulled]) -> dict[str, str]:
    """Image to the digest that all nodes have. Raises NotPulled."""
    if lacking := {node: one.why for node, one in sorted(answers.items()) if one.why}:
        some = "; ".join(f"{node}: {why}" for node, why in list(lacking.items())[:3])
        raise NotPulled(f"{len(lacking)} of {len(answers)} nodes have not pulled the images: {some}")
    found: dict[str, dict[str, list[str]]] = {}
    for node, one in sorted(answers.items()):
        for image, digest in one.digests.items():
            found.setdefault(image, {}).setdefault(digest, []).append(node)
    for image, by in sorted(found.items()):
        if len(by) > 1:
            told = "; ".join(f"{digest[:19]} on {', '.join(on[:3])}" for digest, on in sorted(by.items()))
            raise NotPulled(f"nodes have different images under {image}: {told} (was its tag moved?)")
    return {image: next(iter(by)) for image, by in sorted(found.items())}


async def _pull(client: Client, pod: Raw, within: float) -> Pulled:
    meta = pod["metadata"]
    try:
        await client.create(PODS.raw(), pod, meta["namespace"])
        try:
            return await _there(client, pod, within)
        finally:
            with contextlib.suppress(KubeError):
                await asyncio.shield(client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0))
    except KubeError as refused:
        return Pulled(why=str(refused))


async def _there(client: Client, pod: Raw, within: float) -> Pulled:
    meta, deadline = pod["metadata"], asyncio.get_running_loop().time() + within
    asked = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
    while True:
        raw = await client.get(PODS.raw(), meta["name"], meta["namespace"])
        status = raw.get("status") or {}
        seen = judged(asked, status.get("containerStatuses") or ())
        if len(seen.digests) == len(asked) or seen.why:
            return seen
        if asyncio.get_running_loop().time() > deadline:
            left = ", ".join(image for image in asked.values() if image not in seen.digests)
            return msgspec.structs.replace(seen, why=f"not pulled within {within:.0f} s: {left}")
        await asyncio.sleep(_ASK_EVERY)


def judged(asked: dict[str, str], statuses: Iterable[Raw]) -> Pulled:
    """``asked``: container to image. Whether its program can be started is no matter. Pure."""
    digests, why = {}, []
    for one in statuses:
        image = asked.get(one["name"])
        waiting = (one.get("state") or {}).get("waiting") or {}
        if image is not None and (digest := Image.parse(one.get("imageID") or "").digest):
            digests[image] = digest
        elif waiting.get("reason") in _HOPELESS:
            why.append(f"{image} {waiting['reason']} {waiting.get('message', '')}".strip())
    return Pulled(digests, "; ".join(why))


def puller(
    namespace: str, node: str, run: str, images: Sequence[str], secrets_of: Sequence[dict[str, str]]
) -> Raw:
    """The pod for a node: without a network of its own, without rights, over as soon as it has begun."""
    plain = re.sub("[^a-z0-9-]", "-", node.lower())
    containers: list[dict[str, Any]] = [
        {
            "name": f"image-{number}",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["true"],
            "securityContext": _SECURITY,
        }
        for number, image in enumerate(images)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"towpath-pull-{run}-{plain}"[:253].rstrip("-"),
            "namespace": namespace,
            "labels": LABELS,
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": containers,
            **({"imagePullSecrets": list(secrets_of)} if secrets_of else {}),
        },
    }
