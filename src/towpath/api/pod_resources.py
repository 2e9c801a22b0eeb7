"""What the kubelet tells of pods' devices: ``v1.PodResourcesLister``, as far as it is read. Pure.

Source: k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. Devices of DRA claims (field 5 of a container) are
not a device plugin's, and are passed over.
"""

from collections.abc import Iterator
from typing import Any

from towpath.api.protobuf import text, wire_fields

LIST = "/v1.PodResourcesLister/List"
Devices = dict[str, tuple[str, ...]]
"""IDs of the devices a pod has, by the name of their resource, in the order in which the kubelet has them."""


def devices_of(listing: bytes, namespace: str, name: str) -> Devices | None:
    """Of one pod, out of a ListPodResourcesResponse; None if the kubelet does not know it.

    Raises Malformed.
    """
    for pod in _messages(memoryview(listing), 1):
        if _text(pod, 1) == name and _text(pod, 2) == namespace:
            found: Devices = {}
            for container in _messages(pod, 3):
                for devices in _messages(container, 2):
                    resource = _text(devices, 1)
                    found[resource] = (*found.get(resource, ()), *map(text, _messages(devices, 2)))
            return found
    return None


def _messages(data: Any, number: int) -> Iterator[Any]:
    return (value for at, value in wire_fields(data) if at == number)


def _text(data: Any, number: int) -> str:
    return next(map(text, _messages(data, number)), "")
