"""The DaemonSets that make up the pod network, and what of them runs on which node."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.inventory.images import Image

Raw = dict[str, Any]

# Last parts of the names of images of pod networks: RKE2's, their upstreams' and ours.
NETWORK_IMAGES = frozenset(
    {
        "hardened-calico",
        "hardened-flannel",
        "hardened-cni-plugins",
        "hardened-multus-cni",
        "hardened-multus-thick",
        "towpath-agent",
        "node",
        "flannel",
        "multus-cni",
    }
)
_AMBIGUOUS = {"node": "calico", "flannel": "flannel"}  # only where the path before it says whose
PROBES = "probe.towpath.dev/run"  # label of all that a probe run puts into a cluster, which is no network's
RUNNING, WAITING, ENDED = "running", "waiting", "ended"


class Container(msgspec.Struct, frozen=True):
    """One container of a pod. ``image_id`` is what the runtime really started, ``image`` what it calls that,
    ``asked`` the pod's own word."""

    name: str
    init: bool
    image: Image
    image_id: str
    state: str
    ready: bool
    restarts: int
    why: str
    asked: Image = Image("", "", "", "")


class NetworkPod(msgspec.Struct, frozen=True):
    """A component's pod. ``current`` is whether it was made from the template that stands now."""

    node: str
    name: str
    ready: bool
    current: bool
    containers: tuple[Container, ...]


class Component(msgspec.Struct, frozen=True):
    """A DaemonSet of the network, as its controller sees it and as its pods are.

    ``wanted``: container to image of the template. ``observed``: the controller has seen the latest template.
    ``strategy``: RollingUpdate or OnDelete. ``account``: the service account of its pods.
    """

    namespace: str
    name: str
    wanted: dict[str, Image]
    strategy: str
    observed: bool
    desired: int
    updated: int
    ready: int
    pods: tuple[NetworkPod, ...]
    account: str = "default"

    @property
    def object(self) -> str:
        """As findings name it."""
        return f"DaemonSet/{self.namespace}/{self.name}"


class NodeFacts(msgspec.Struct, frozen=True):
    """``release`` is the kubelet's version; ``cached`` the images that lie on the node, running or not, with
    their digests where they are told."""

    name: str
    release: str
    ready: bool
    kernel: str
    os: str
    runtime: str
    architecture: str
    cached: frozenset[Image]


def is_network(image: Image) -> bool:
    """Whether an image belongs to a pod network."""
    whose = _AMBIGUOUS.get(image.name)
    return image.name in NETWORK_IMAGES and (whose is None or f"{whose}/" in f"{image.repository}/")


def components(daemonsets: Iterable[Raw], pods: Iterable[Raw], also: str = "") -> tuple[Component, ...]:
    """DaemonSets with an image of a pod network, in order of their names; ``also`` the one of that name.

    ``daemonsets`` ``apps/v1``, ``pods`` ``v1``, as the API gives them. Targets of ``towpath probe`` are none,
    which run the agent's image while it measures an upgrade.
    """
    by_owner: dict[str, list[Raw]] = {}
    for pod in pods:
        for owner in pod["metadata"].get("ownerReferences") or ():
            by_owner.setdefault(owner.get("uid", ""), []).append(pod)
    found = []
    for raw in daemonsets:
        wanted, labels = _wanted(raw), raw["metadata"].get("labels") or {}
        named = also in (raw["metadata"]["name"], f"{raw['metadata']['namespace']}/{raw['metadata']['name']}")
        if named or (any(map(is_network, wanted.values())) and PROBES not in labels):
            found.append(_component(raw, wanted, by_owner.get(raw["metadata"].get("uid", ""), [])))
    return tuple(sorted(found, key=lambda one: (one.namespace, one.name)))


def node_facts(raw: Raw) -> NodeFacts:
    """Of a ``v1`` Node."""
    status = raw.get("status") or {}
    info = status.get("nodeInfo") or {}
    conditions = status.get("conditions") or ()
    images = status.get("images") or ()
    return NodeFacts(
        name=raw["metadata"]["name"],
        release=info.get("kubeletVersion", ""),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        kernel=info.get("kernelVersion", ""),
        os=info.get("osImage", ""),
        runtime=info.get("containerRuntimeVersion", ""),
        architecture=info.get("architecture", ""),
        cached=frozenset(image for entry in images for image in _tagged(entry.get("names") or ())),
    )


def _tagged(names: Iterable[str]) -> Iterable[Image]:
    """One image's names with tags, each with the digest that stands among them for the same repository."""
    parsed = [Image.parse(name) for name in names]
    digests = {image.repository: image.digest for image in parsed if image.digest}
    for image in parsed:
        if image.tag and is_network(image):
            yield replace(image, digest=digests.get(image.repository, ""))


def component_pod(raw: Raw) -> NetworkPod:
    """A pod of a component, seen by itself: ``current`` says nothing then."""
    return _pod(raw, {}, "")


def _wanted(raw: Raw) -> dict[str, Image]:
    spec = raw["spec"]["template"]["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    return {one["name"]: Image.parse(one.get("image", "")) for one in containers}


def _component(raw: Raw, wanted: dict[str, Image], pods: list[Raw]) -> Component:
    meta, status = raw["metadata"], raw.get("status") or {}
    # Of the template, not of the object: a change of the update strategy makes no pod old.
    generation = (meta.get("annotations") or {}).get("deprecated.daemonset.template.generation", "")
    return Component(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        wanted=wanted,
        strategy=(raw["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate"),
        observed=status.get("observedGeneration", 0) >= meta.get("generation", 0),
        desired=status.get("desiredNumberScheduled", 0),
        updated=status.get("updatedNumberScheduled") or 0,
        ready=status.get("numberReady", 0),
        pods=tuple(sorted((_pod(pod, wanted, generation) for pod in pods), key=lambda pod: pod.node)),
        account=raw["spec"]["template"]["spec"].get("serviceAccountName") or "default",
    )


def _pod(raw: Raw, wanted: dict[str, Image], generation: str) -> NetworkPod:
    meta, status = raw["metadata"], raw.get("status") or {}
    spec = raw["spec"]
    asked = {
        one["name"]: one.get("image", "")
        for one in (*(spec.get("initContainers") or ()), *spec["containers"])
    }
    containers = [
        _container(one, asked.get(one["name"], ""), init)
        for key, init in (("initContainerStatuses", True), ("containerStatuses", False))
        for one in status.get(key) or ()
    ]
    template = (meta.get("labels") or {}).get("pod-template-generation", "")
    same = {name: Image.parse(image) for name, image in asked.items()} == wanted
    conditions = status.get("conditions") or ()
    return NetworkPod(
        node=spec.get("nodeName", ""),
        name=meta["name"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        current=template == generation if template and generation else same,
        containers=tuple(containers),
    )


def _container(raw: Raw, asked: str, init: bool) -> Container:
    """``asked`` is the pod's own word, for runtimes that give a bare digest for the image's name."""
    state = raw.get("state") or {}
    image = Image.parse(raw.get("image", ""))
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    return Container(
        name=raw["name"],
        init=init,
        image=image if image.name else Image.parse(asked),
        asked=Image.parse(asked),
        image_id=raw.get("imageID", ""),
        state=RUNNING if state.get("running") else WAITING if state.get("waiting") else ENDED,
        ready=bool(raw.get("ready")),
        restarts=raw.get("restartCount", 0),
        why=" ".join(filter(None, (waiting.get("reason"), ended.get("reason"), waiting.get("message")))),
    )
