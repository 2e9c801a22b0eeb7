"""Devices for networks: which of those that the kubelet gave a pod goes to which of its networks. Pure.

As with Multus, a definition with the annotation ``k8s.v1.cni.cncf.io/resourceName`` takes the next of the
pod's devices of that resource, in the order of the pod's networks; ``deviceID`` in the pod's annotation comes
before it, and counts.

Device-info files (NPWG device-info specification, 1.1.0): a device plugin describes each device in a file;
the CNI plugin that declares the capability ``CNIDeviceInfoFile`` is told which, and may add to it;
network-status tells what is in it. Multus makes a copy of the file for that; the device being the pod's
alone, so is its file.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from towpath.multinet.choose import Wanted
from towpath.multinet.definition import Definition
from towpath.multinet.derive import Call
from towpath.multinet.refusal import NetworkRefused

CAPABILITY = "CNIDeviceInfoFile"
FOLDER = "/var/run/k8s.cni.cncf.io/devinfo"
_TYPES = ("pci", "vdpa", "vhost-user", "memif")


def needs_devices(wanted: Iterable[Wanted]) -> bool:
    """Whether a network's device is the kubelet's to tell."""
    return any(one.definition.resource and not one.selection.device_id for one in wanted)


def with_devices(
    wanted: Sequence[Wanted], devices: Mapping[str, Sequence[str]], taken: Iterable[str] = ()
) -> tuple[Wanted, ...]:
    """Each that takes a device with one of the pod's; ``taken`` are those it has in other networks already.

    Raises NetworkRefused (TP6015).
    """
    used = {*taken, *(one.selection.device_id for one in wanted)}
    found = []
    for one in wanted:
        resource = one.definition.resource
        if resource and not one.selection.device_id:
            own = devices.get(resource, ())
            free = next((device for device in own if device not in used), "")
            if not free:
                raise NetworkRefused(
                    "TP6015",
                    f"network {one.definition.reference}",
                    f"the pod has {len(own)} devices of {resource}, and none is left for it",
                    f"ask in its containers' limits for as many {resource} as it has such networks",
                )
            used.add(free)
            one = replace(one, selection=replace(one.selection, device_id=free))
        found.append(one)
    return tuple(found)


def info_file(definition: Definition, device: str, container_id: str, ifname: str) -> str:
    """Where a device is described, below ``FOLDER``: the device plugin's file of it, which is this pod's as
    long as the device is; else one of the attachment's own, which its plugin may write.
    """
    if definition.resource and device:
        return f"dp/{_flat(f'{definition.resource}-{device}')}-device.json"
    return f"cni/{_flat(f'{definition.network}-{container_id}-{ifname}')}-device.json"


def described(call: Call, wanted: Wanted) -> Call:
    """The call with the file that describes its device, told to plugins that declare the capability."""
    definition = wanted.definition
    declared = definition.declares(CAPABILITY)
    if not declared and not (definition.resource and call.device):
        return call
    file = info_file(definition, call.device, call.container_id, call.ifname)
    runtime = {**call.runtime, CAPABILITY: f"{FOLDER}/{file}"} if declared else call.runtime
    return replace(call, runtime=runtime, device_info=file)


def _flat(name: str) -> str:
    return name.replace("/", "-")


def device_info(content: bytes) -> dict[str, Any] | None:
    """What network-status tells of a device; None for what is no such file."""
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None
    if not isinstance(found, dict) or found.get("type") not in _TYPES:
        return None
    return found
