"""Names of places in a lab: a node, a pod (``name`` or ``namespace/name``), ``outside``."""

import os
from pathlib import Path
from typing import Literal

import msgspec

from towpath.lab.lifecycle import listed
from towpath.lab.orders import OUTSIDE, Order, ask, node_netns
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A place. ``name`` as found (pods: ``namespace/name``); ``node`` it is on, "" for outside."""

    kind: Literal["node", "pod", "outside"]
    name: str
    node: str = ""


class Places:
    """All places of a lab at one moment, with descriptors of their network namespaces on demand."""

    def __init__(self, spec: LabSpec) -> None:
        """Asks every node once. Raises LabError."""
        report = ask(Order(op="list"))
        self._pids = {process.name: process.pid for process in report.nodes}
        self._pods: dict[str, tuple[str, str]] = {}
        self._nodes = [node.name for node in spec.nodes]
        for node in self._nodes:
            try:
                sandboxes, containers = listed(node)
            except LabError:
                continue
            for sandbox in sandboxes:
                name = f"{sandbox.labels.get('namespace')}/{sandbox.labels.get('name')}"
                self._pods[name] = (node, sandbox.netns)
            for container in containers:
                if not container.sandbox:
                    name = f"{container.labels.get('namespace')}/{container.labels.get('pod')}"
                    self._pods.setdefault(name, (node, ""))

    def find(self, text: str) -> Target:
        """A node's name, ``outside``, ``ns/pod``, or a pod's name in namespace default. Raises LabError."""
        if text == "outside":
            return Target(kind="outside", name=text)
        if text in self._nodes:
            return Target(kind="node", name=text, node=text)
        name = text if "/" in text else f"default/{text}"
        if name not in self._pods:
            raise LabError(
                f"there is no node or pod {text!r}", "pods of other namespaces are written NAMESPACE/NAME"
            )
        return Target(kind="pod", name=name, node=self._pods[name][0])

    def netns(self, target: Target) -> int:
        """A descriptor of its network namespace. Raises LabError, OSError."""
        if target.kind == "outside":
            return os.open(OUTSIDE, os.O_RDONLY | os.O_CLOEXEC)
        if target.kind == "node":
            return node_netns(target.name)
        node, path = self._pods[target.name]
        if not path:
            return node_netns(node)
        # The file is a mount in the node's mount namespace; /proc/PID/root leads there.
        return os.open(Path(f"/proc/{self._pids[node]}/root{path}"), os.O_RDONLY | os.O_CLOEXEC)


def find_target(spec: LabSpec, text: str) -> Target:
    """``Places.find`` for one look-up."""
    return Places(spec).find(text)
