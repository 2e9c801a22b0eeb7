"""Whether every node runs what it should: the DaemonSet's template, one version, the release expected."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from towpath.inventory.components import WAITING, Component, Container, NetworkPod, NodeFacts
from towpath.inventory.images import Image
from towpath.model.finding import Finding


class _Wanted(NamedTuple):
    """``lies``: an image of that tag is on the node."""

    tag: str
    release: str
    lies: bool


def findings(parts: Iterable[Component], nodes: Iterable[NodeFacts]) -> list[Finding]:
    """What is not as the DaemonSets say."""
    found: list[Finding] = []
    ready = {node.name for node in nodes if node.ready}
    for part in parts:
        found += _counts(part)
        for pod in part.pods:
            found += _pod(part, pod, ready)
        found += _retagged(part)
    return found


def unexpected(
    parts: Iterable[Component], nodes: Iterable[NodeFacts], expected: Mapping[str, str], release: str
) -> list[Finding]:
    """Where something else runs than ``expected`` (image name to tag) says, or nothing of it.

    An image that merely lies on the node is no proof, and is named where it misleads.
    """
    parts = tuple(parts)
    cached = {node.name: node.cached for node in nodes}
    found = []
    for part in parts:
        for pod in part.pods:
            for one in pod.containers:
                lying = cached.get(pod.node, frozenset())
                image = running(one, lying)
                tag = expected.get(image.name)
                if tag is not None and image.tag != tag:
                    lies = any((i.name, i.tag) == (image.name, tag) for i in lying)
                    found.append(_other(part, pod, one.name, image, _Wanted(tag, release, lies)))
    ours = {image.name for part in parts for image in part.wanted.values()}
    if not ours & expected.keys():
        found.append(
            Finding(
                code="TP7506",
                object="Cluster",
                message=f"runs nothing of what {release} consists of ({', '.join(sorted(expected))})",
                fix="name the release of the network that runs here; `towpath releases` lists them",
            )
        )
    return found


def running(one: Container, cached: Iterable[Image]) -> Image:
    """The image that a container runs: what the runtime says, or what the pod asked for, if that is the same.

    A runtime that knows an image by several tags tells any of them. ``cached``: what lies on the node, which
    tells whether the tag that was asked for is that of another image by now.
    """
    asked, runs = one.asked, Image.parse(one.image_id.rpartition("//")[2]).digest
    if not asked.tag or asked.name != one.image.name:
        return one.image
    lying = {image.digest for image in cached if (image.name, image.tag) == (asked.name, asked.tag)}
    return asked if not runs or runs in lying or not any(lying) else one.image


def _counts(part: Component) -> list[Finding]:
    found = []
    if not part.observed:
        found.append(
            Finding(
                code="TP7501",
                object=part.object,
                message="its controller has not seen the latest template",
                fix="wait, and look at kube-controller-manager if it lasts",
                severity="warning",
            )
        )
    if part.ready < part.desired or part.updated < part.desired:
        found.append(
            Finding(
                code="TP7502",
                object=part.object,
                message=f"{part.desired} wanted, {part.updated} updated, {part.ready} ready",
                fix="the pods that are not are named below; kubectl describe them",
            )
        )
    if not part.desired:
        found.append(
            Finding(
                code="TP7502",
                object=part.object,
                message="no node is meant to run it",
                fix="look at its node selector and tolerations",
                severity="warning",
            )
        )
    return found


def _pod(part: Component, pod: NetworkPod, ready: set[str]) -> list[Finding]:
    found = []
    where = f"Pod/{part.namespace}/{pod.name} on {pod.node}"
    if not pod.current:
        fix = (
            f"delete it when its turn has come: kubectl delete pod -n {part.namespace} {pod.name}"
            if part.strategy == "OnDelete"
            else "wait for the DaemonSet's controller to replace it"
        )
        found.append(Finding(code="TP7503", object=where, message="was made from an older template", fix=fix))
    if not pod.ready:
        whys = "; ".join(f"{one.name} {one.why or one.state}" for one in pod.containers if not _well(one))
        lost = "" if pod.node in ready else " (its node is not Ready either)"
        found.append(
            Finding(
                code="TP7504",
                object=where,
                message=f"is not ready: {whys or 'no container says why'}{lost}",
                fix=f"kubectl describe pod -n {part.namespace} {pod.name}",
            )
        )
    return found


def _well(one: Container) -> bool:
    return one.state != WAITING if one.init else one.ready


def _retagged(part: Component) -> list[Finding]:
    """One tag that is different images on different nodes."""
    ids: dict[Image, dict[str, str]] = {}
    for pod in part.pods:
        for one in pod.containers:
            digest = Image.parse(one.image_id.rpartition("//")[2]).digest or one.image_id
            if digest:
                image = one.asked if one.asked.tag else one.image
                ids.setdefault(replace(image, digest=""), {}).setdefault(digest, pod.node)
    return [
        Finding(
            code="TP7507",
            object=part.object,
            message=f"{image} is not the same image on {' and '.join(sorted(nodes.values()))}",
            fix="pull it afresh on the nodes; pin it by digest",
            severity="warning",
        )
        for image, nodes in sorted(ids.items())
        if len(nodes) > 1
    ]


def _other(part: Component, pod: NetworkPod, container: str, runs: Image, wanted: _Wanted) -> Finding:
    lying = f"; {runs.name}:{wanted.tag} lies on the node, but is not what runs" if wanted.lies else ""
    return Finding(
        code="TP7505",
        object=f"Pod/{part.namespace}/{pod.name} on {pod.node}",
        message=f"{container} runs {runs}, {wanted.release} has {wanted.tag}{lying}",
        fix="roll the DaemonSet on this node",
    )
