"""The first part of ``towpath verify``: the network's DaemonSets, and the versions that really run."""

from typing import Any, NamedTuple

import msgspec

from towpath.catalogue import load
from towpath.catalogue.model import CatalogueError
from towpath.catalogue.versions import ReleaseVersion
from towpath.cli.exit import USAGE, CliError
from towpath.cli.output import mark, table
from towpath.inventory import components, rollout
from towpath.inventory.components import Component, NodeFacts
from towpath.kube.client import Client
from towpath.kube.kinds import DAEMONSETS, NODES, PODS
from towpath.model.finding import Finding

OURS = "towpath-agent"


class Rollout(NamedTuple):
    """What runs, and what about it is not as it should be."""

    parts: tuple[Component, ...]
    nodes: tuple[NodeFacts, ...]
    findings: tuple[Finding, ...]
    untold: tuple[str, ...] = ()

    def with_findings(self, more: tuple[Finding, ...], untold: tuple[str, ...]) -> "Rollout":
        """What was found on the nodes beside it."""
        return self._replace(findings=(*self.findings, *more), untold=(*self.untold, *untold))

    @property
    def has_agents(self) -> bool:
        """Whether Towpath's own agents are meant to run here."""
        return any(map(_is_ours, self.parts))

    @property
    def with_agents(self) -> frozenset[str]:
        """The nodes that have one: all of them, or some while a cluster goes from Canal to Towpath."""
        return frozenset(pod.node for part in self.parts if _is_ours(part) for pod in part.pods)


def _is_ours(part: Component) -> bool:
    return any(image.name == OURS for image in part.wanted.values())


def expected_images(release: str) -> dict[str, str]:
    """Image name to tag, of an RKE2 release (``v1.32.2+rke2r1``) or a version of Towpath (``v0.1.0``).

    Raises CliError for what is neither.
    """
    try:
        return load.builtin().release(release).images
    except CatalogueError as unknown:
        try:
            ReleaseVersion.parse(release.replace("-rke2r", "+rke2r"))
        except ValueError:
            if release.removeprefix("v").replace(".", "").isdigit():
                return {OURS: f"v{release.removeprefix('v')}"}
        raise CliError(f"TP7001 {unknown}", USAGE) from unknown


async def gather(client: Client, expect: str) -> Rollout:
    """Ask the API server; ``expect`` empty: whatever runs is right if it runs everywhere."""
    expected = expected_images(expect) if expect else {}
    nodes = tuple(map(components.node_facts, (await client.list(NODES.raw())).items))
    daemonsets = (await client.list(DAEMONSETS)).items
    spaces = sorted({one.namespace for one in components.components(daemonsets, ())})
    pods = [pod for space in spaces for pod in (await client.list(PODS.raw(), space)).items]
    parts = components.components(daemonsets, pods)
    found = rollout.findings(parts, nodes)
    if expect:
        found += rollout.unexpected(parts, nodes, expected, expect)
    return Rollout(parts, tuple(sorted(nodes, key=lambda node: node.name)), tuple(found))


def screen(found: Rollout) -> str:
    """For a person: a line a DaemonSet, the versions on each node, the findings."""
    if not found.parts:
        return "no DaemonSet of a pod network that is known here"
    heads = ["DAEMONSET", "WANTED", "UPDATED", "READY"]
    rows = []
    for part in found.parts:
        well = part.ready >= part.desired and part.updated >= part.desired and part.desired
        counts = [str(part.desired), str(part.updated), mark(str(part.ready), "ok" if well else "error")]
        rows.append([f"{part.namespace}/{part.name}", *counts])
    lines = [table(heads, rows), ""]
    names = sorted({i.name for part in found.parts for i in part.wanted.values() if components.is_network(i)})
    running = _running(found)
    body = [
        [node.name, node.release, *(running.get((node.name, n), "-") for n in names)] for node in found.nodes
    ]
    lines.append(table(["NODE", "KUBELET", *(name.upper() for name in names)], body))
    lines += [f"{mark('✗', 'error')} {finding}" for finding in found.findings]
    lines += [f"{mark('?', 'warning')} cannot tell: {why}" for why in found.untold]
    return "\n".join(lines)


def _running(found: Rollout) -> dict[tuple[str, str], str]:
    """Node and image name to the tags that run there."""
    tags: dict[tuple[str, str], set[str]] = {}
    cached = {node.name: node.cached for node in found.nodes}
    for part in found.parts:
        for pod in part.pods:
            for one in pod.containers:
                if components.is_network(one.image):
                    image = rollout.running(one, cached.get(pod.node, ()))
                    tags.setdefault((pod.node, image.name), set()).add(image.tag or str(image))
    return {key: ", ".join(sorted(those)) for key, those in tags.items()}


def as_data(found: Rollout) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "daemonsets": [
            {
                "namespace": part.namespace,
                "name": part.name,
                "desired": part.desired,
                "updated": part.updated,
                "ready": part.ready,
                "strategy": part.strategy,
                "pods": [_pod(pod) for pod in part.pods],
            }
            for part in found.parts
        ],
        "nodes": [
            {
                "name": node.name,
                "release": node.release,
                "kernel": node.kernel,
                "os": node.os,
                "cached": sorted(str(image) for image in node.cached),
            }
            for node in found.nodes
        ],
        "findings": [msgspec.to_builtins(finding) for finding in found.findings],
        "untold": list(found.untold),
    }


def _pod(pod: components.NetworkPod) -> dict[str, Any]:
    containers = [
        {
            "name": one.name,
            "image": str(one.image),
            "imageID": one.image_id,
            "state": one.state,
            "ready": one.ready,
        }
        for one in pod.containers
    ]
    return {
        "node": pod.node,
        "name": pod.name,
        "ready": pod.ready,
        "current": pod.current,
        "containers": containers,
    }
