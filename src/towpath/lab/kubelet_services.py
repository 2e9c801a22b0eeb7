"""What a pod's worker works with, and the pod memory that survives reboots."""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec

from towpath.kube.client import Client
from towpath.lab.kubelet_cni import Cni
from towpath.lab.kubelet_events import Recorder
from towpath.lab.runtime_api import Runtime

CHECKPOINTS = Path("/var/lib/kubelet/sandboxes")
VOLUMES = Path("/var/lib/kubelet/pods")
LOGS = Path("/var/log/pods")


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Shared by all workers of a kubelet. ``environment`` is what every container gets; ``network_ready`` is
    set once the network has answered STATUS: before, no pod of the pod network is started. ``patience``:
    seconds a sandbox may take before "ContainerCreating" is worth a write of its own.
    """

    node: str
    host_ips: list[str]
    client: Client
    runtime: Runtime
    cni: Cni
    recorder: Recorder
    environment: dict[str, str]
    network_ready: asyncio.Event
    patience: float


class Checkpoint(msgspec.Struct, kw_only=True):
    """A pod's sandbox as the disk remembers it, from before its CNI ADD until after its CNI DEL."""

    uid: str
    namespace: str
    name: str
    sandbox: str = ""
    netns: str = ""
    ips: list[str] = []
    restarts: dict[str, int] = {}  # of every container that was ever started

    def save(self) -> None:
        """Write, complete or not at all. Raises OSError."""
        CHECKPOINTS.mkdir(parents=True, exist_ok=True)
        partial = CHECKPOINTS / f".{self.uid}"
        partial.write_bytes(msgspec.json.encode(self))
        partial.replace(CHECKPOINTS / f"{self.uid}.json")

    def forget(self) -> None:
        """The pod is gone for good."""
        (CHECKPOINTS / f"{self.uid}.json").unlink(missing_ok=True)


def read_checkpoints() -> dict[str, Checkpoint]:
    """All checkpoints by pod uid; a damaged one is dropped."""
    found = {}
    for path in CHECKPOINTS.glob("*.json"):
        try:
            checkpoint = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
            found[checkpoint.uid] = checkpoint
        except (OSError, msgspec.DecodeError):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
    return found
