"""Pods' devices, as the kubelet has given them out: gRPC over a connection that the shim hands over.

Only root may connect to the kubelet's socket; once connected, anybody may ask.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from towpath.api.core import Pod
from towpath.api.pod_resources import Devices, devices_of
from towpath.api.protobuf import Malformed
from towpath.cni.request import Request
from towpath.multinet.choose import Wanted
from towpath.multinet.devices import device_info, needs_devices, with_devices
from towpath.multinet.refusal import NetworkRefused

NO_ANSWER = "TP6026"
_ANSWER_WITHIN = 5.0


class PodDevices:
    """``path`` of the kubelet's socket pod-resources/kubelet.sock; ``folder`` of device-info files."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder

    async def give(
        self, r: Request, pod: Pod, wanted: Sequence[Wanted], taken: Iterable[str] = ()
    ) -> tuple[Wanted, ...]:
        """Each of a pod's networks that takes a device with one of the pod's. Raises NetworkRefused."""
        if not needs_devices(wanted):
            return tuple(wanted)
        return with_devices(wanted, await self.of(r, pod.metadata.namespace, pod.metadata.name), taken)

    def info(self, file: str) -> dict[str, Any] | None:
        """What network-status tells of a device; None where nobody has described it."""
        if not file:
            return None
        try:
            return device_info((self._folder / file).read_bytes())
        except OSError:
            return None

    async def of(self, r: Request, namespace: str, name: str) -> Devices:
        """Of one pod. Raises NetworkRefused."""
        from towpath.agent.kubelet_devices import listing

        about = f"devices of Pod/{namespace}/{name}"
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                found = devices_of(await listing(await r.kubelet(str(self._path))), namespace, name)
        except TimeoutError as error:
            raise _refused(about, f"the kubelet did not answer within {_ANSWER_WITHIN:g} s") from error
        except (OSError, Malformed) as error:
            raise _refused(about, f"the kubelet's list of devices cannot be read: {error}") from error
        if found is None:
            raise _refused(about, "the kubelet does not know the pod")
        return found


def _refused(about: str, problem: str) -> NetworkRefused:
    fix = "look at the kubelet, and at the agents' setting network_kubelet_socket"
    return NetworkRefused(NO_ANSWER, about, problem, fix)
